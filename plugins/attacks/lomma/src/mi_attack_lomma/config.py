"""Settings of LOMMA, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mi_image.ked_training import KedSettings
from mi_image.students import StudentSettings
from mi_image.wgan_training import WganSettings
from micore.contracts import Config


class LommaConfig(Config):
    """Settings of LOMMA; the defaults of single fields are the authors', presets change them."""

    base: Literal["gmi", "kedmi"] = Field("kedmi", description="attack that is improved: its GAN and its search")
    variant: Literal["baseline", "augmented", "logit", "full"] = Field(
        "full",
        description="baseline: the base's cross-entropy; augmented: with students; logit: raw logits; full: both",
    )
    # GAN
    latent_dim: int = Field(100, ge=1, description="dimensions of the latent space (paper: 100)")
    width: int = Field(64, ge=1, description="channels of the networks' finest stage (code: 64)")
    gan_batch_size: int = Field(64, ge=2, description="images of one GAN step (code: 64)")
    gmi_iterations: int = Field(11_250, ge=1, description="generator steps with base gmi (code: 120 epochs)")
    gmi_critic_steps: int = Field(5, ge=1, description="critic steps per generator step with base gmi (code: 5)")
    gmi_gan_learning_rate: float = Field(2e-4, gt=0, description="of both Adams with base gmi (code: 2e-4)")
    kedmi_iterations: int = Field(11_250, ge=1, description="generator steps with base kedmi (code: 120 epochs)")
    kedmi_critic_steps: int = Field(5, ge=1, description="critic steps per generator step with base kedmi (code: 5)")
    kedmi_gan_learning_rate: float = Field(2e-4, gt=0, description="of both Adams with base kedmi (code: 2e-4)")
    kernels: int = Field(64, ge=1, description="values of the minibatch discrimination, base kedmi (code: 64)")
    kernel_dim: int = Field(50, ge=1, description="dimensions in which it takes distances (code: 50)")
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
        return WganSettings(
            latent_dim=self.latent_dim, width=self.width, batch_size=self.gan_batch_size,
            iterations=self.gmi_iterations, critic_steps=self.gmi_critic_steps,
            learning_rate=self.gmi_gan_learning_rate,
        )  # fmt: skip

    def ked_settings(self) -> KedSettings:
        """Return the settings of KED-MI's GAN."""
        return KedSettings(
            latent_dim=self.latent_dim, width=self.width, batch_size=self.gan_batch_size,
            n_kernels=self.kernels, kernel_dim=self.kernel_dim, iterations=self.kedmi_iterations,
            critic_steps=self.kedmi_critic_steps, learning_rate=self.kedmi_gan_learning_rate,
        )  # fmt: skip

    def student_settings(self) -> StudentSettings:
        """Return the settings of the students."""
        return StudentSettings(
            network=self.student_network, widths=self.student_widths, epochs=self.student_epochs,
            batch_size=self.student_batch_size, learning_rate=self.student_learning_rate,
        )  # fmt: skip


PREPARE_FIELDS = frozenset(
    {
        "base", "latent_dim", "width", "gan_batch_size", "gmi_iterations", "gmi_critic_steps", "gmi_gan_learning_rate",
        "kedmi_iterations", "kedmi_critic_steps", "kedmi_gan_learning_rate", "kernels", "kernel_dim",
        "student_network", "student_widths", "student_epochs", "student_batch_size", "student_learning_rate",
    }
)  # fmt: skip
"""All but the variant, the identity loss and the search: one preparation serves all variants."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {
        "latent_dim": 100, "width": 24, "gan_batch_size": 32,
        "gmi_iterations": 1500, "gmi_critic_steps": 1, "gmi_gan_learning_rate": 1e-3,
        "kedmi_iterations": 700, "kedmi_critic_steps": 1, "kernels": 16, "kernel_dim": 16,
        "student_network": "small-cnn", "student_widths": (12, 16, 24), "student_learning_rate": 0.05,
        "steps": 300, "class_batch": 1, "gaussians": 2,
    },
    "smoke": {
        "latent_dim": 16, "width": 8, "gan_batch_size": 16,
        "gmi_iterations": 60, "gmi_critic_steps": 1, "gmi_gan_learning_rate": 2e-3,
        "kedmi_iterations": 60, "kedmi_critic_steps": 1, "kedmi_gan_learning_rate": 2e-3, "kernels": 8, "kernel_dim": 4,
        "student_network": "small-cnn", "student_widths": (6, 8), "student_epochs": 10, "student_learning_rate": 0.05,
        "steps": 60, "learning_rate": 0.05, "class_batch": 1, "restarts": 3, "draws": 3,
    },
    "paper": {},
}  # fmt: skip
