"""Settings of LOMMA, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mi_image import ked_training, wgan_training
from mi_image.ked_training import KedSettings
from mi_image.students import StudentSettings
from micore.contracts import Config
from micore.kit.wgan import WganSettings

GMI_SCALES: Mapping[str, Mapping[str, Any]] = {
    "published": {"iterations": 11_250}, "small": wgan_training.SMALL, "smoke": wgan_training.SMOKE,
}  # fmt: skip
"""GMI's GAN by its size; published: 120 epochs of 30,000 images, as LOMMA's code."""
KEDMI_SCALES: Mapping[str, Mapping[str, Any]] = {
    "published": {}, "small": ked_training.SMALL, "smoke": ked_training.SMOKE,
}  # fmt: skip
"""KED-MI's GAN by its size."""


class LommaConfig(Config):
    """Settings of LOMMA; the defaults of single fields are the authors', presets change them."""

    base: Literal["gmi", "kedmi"] = Field("kedmi", description="attack that is improved: its GAN and its search")
    variant: Literal["baseline", "augmented", "logit", "full"] = Field(
        "full", description="baseline: the base's loss; augmented: with students; logit: raw logits; full: both"
    )
    # GAN
    gan_scale: Literal["published", "small", "smoke"] = Field(
        "published", description="the base's GAN as in the presets paper, default, smoke of attacks gmi and kedmi"
    )
    iterations: int | None = Field(None, ge=1, description="generator steps; none: those of gan_scale")
    width: int | None = Field(None, ge=1, description="channels of the GAN's finest stage; none: that of gan_scale")
    gan_learning_rate: float | None = Field(None, gt=0, description="of the GAN's Adams; none: that of gan_scale")
    # students (section 4.2)
    student_network: Literal["small-cnn", "small-resnet", "resnet18"] = Field(
        "resnet18", description="architecture of the students (paper: EfficientNet)"
    )
    student_widths: tuple[int, ...] = Field(
        (48, 64, 80), min_length=1, description="one student for each width (paper: B0, B1, B2)"
    )
    student_epochs: int = Field(20, ge=1, description="passes over the public images (code: 20)")
    student_batch_size: int = Field(64, ge=2, description="images of one step (code: 64)")
    student_learning_rate: float = Field(0.01, gt=0, description="of their SGD with momentum (code: 0.01)")
    # identity loss (section 4.1)
    identity_weight: float = Field(100.0, ge=0, description="weight of the identity loss (code: 100)")
    feature_weight: float = Field(1.0, ge=0, description="weight of the feature prior within it (paper lambda: 1)")
    feature_distance: Literal["mean", "sum"] = Field(
        "mean", description="of the squared differences of features: mean (code) or sum (paper's norm)"
    )
    # search
    steps: int = Field(2400, ge=0, description="steps of the search (code: 2400)")
    learning_rate: float = Field(0.02, gt=0, description="of the search (code: 0.02)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the search with base gmi (code: 0.9)")
    class_batch: int = Field(
        60, ge=1, description="with base gmi: rows of the authors' mean loss, divides the learning rate (code: 60)"
    )
    restarts: int = Field(5, ge=1, description="reconstructions per class with base gmi (code: 5)")
    gaussians: int = Field(1, ge=1, description="Gaussians per class with base kedmi (code: 1)")
    draws: int = Field(5, ge=1, description="reconstructions from each Gaussian with base kedmi (code: 5)")
    patience: int | None = Field(
        None,
        ge=1,
        description="with base kedmi: steps without a lower loss until a Gaussian retires (code: none)",
    )
    clip: Literal["none", "samples"] = Field(
        "samples", description="with base kedmi: whether drawn latents are clamped to [-1, 1] (code: in the search)"
    )

    @property
    def maximises_logits(self) -> bool:
        """Whether the loss is the raw logit, with the feature prior."""
        return self.variant in ("logit", "full")

    @property
    def asks_students(self) -> bool:
        """Whether students take part in the search."""
        return self.variant in ("augmented", "full")

    def wgan_settings(self) -> WganSettings:
        """Return the settings of GMI's GAN."""
        return WganSettings(**{**GMI_SCALES[self.gan_scale], **self._gan_changes()})

    def ked_settings(self) -> KedSettings:
        """Return the settings of KED-MI's GAN."""
        return KedSettings(**{**KEDMI_SCALES[self.gan_scale], **self._gan_changes()})

    def _gan_changes(self) -> dict[str, Any]:
        changes = {"iterations": self.iterations, "width": self.width, "learning_rate": self.gan_learning_rate}
        return {name: value for name, value in changes.items() if value is not None}

    def student_settings(self) -> StudentSettings:
        """Return the settings of the students."""
        return StudentSettings(
            network=self.student_network, widths=self.student_widths, epochs=self.student_epochs,
            batch_size=self.student_batch_size, learning_rate=self.student_learning_rate,
        )  # fmt: skip


PREPARE_FIELDS = frozenset(
    {
        "base", "variant", "gan_scale", "iterations", "width", "gan_learning_rate",
        "student_network", "student_widths", "student_epochs", "student_batch_size", "student_learning_rate",
    }
)  # fmt: skip
"""All but the identity loss and the search; the variant, because it says whether there are students."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {
        "variant": "logit", "gan_scale": "small", "student_network": "small-cnn", "student_widths": (12, 16, 24),
        "student_learning_rate": 0.05, "steps": 1500, "gaussians": 5, "draws": 2, "restarts": 10,
    },
    "smoke": {
        "gan_scale": "smoke", "student_network": "small-cnn", "student_widths": (6, 8), "student_epochs": 10,
        "student_learning_rate": 0.05, "steps": 60, "learning_rate": 0.05, "class_batch": 1, "restarts": 3, "draws": 3,
    },
    "paper": {},
}  # fmt: skip
