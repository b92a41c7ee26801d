"""Settings of the attack surrogate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mi_image.augment import Augmentation
from mi_image.identity import default_flip
from mi_image.public_queries import PublicQueryConfig
from mi_image.students import StudentSettings
from mi_image.surrogates import SurrogateSettings
from micore.kit.wrappers import WrapperConfig

__all__ = ["SurrogateConfig"]


class SurrogateConfig(PublicQueryConfig, WrapperConfig):
    """Settings of the surrogate; the base attack's own are in ``base_options``."""

    base: str = Field("plmi", description="attack on the student, to which it has white-box access")
    mixtures: int = Field(0, ge=0, description="mixtures of two public images that are asked about, for each of them")
    answers: Literal["best", "labels"] = Field(
        "best", description="what the student learns: scores where they are granted, or labels whatever is granted"
    )
    student_network: Literal["small-cnn", "small-resnet", "resnet18"] = Field(
        "resnet18", description="architecture of the student"
    )
    student_widths: tuple[int, ...] = Field(
        (64,), min_length=1, description="one student for each; logits are averaged"
    )
    student_epochs: int = Field(60, ge=1, description="passes over the images that were asked about")
    student_batch_size: int = Field(64, ge=2, description="images of one step")
    student_learning_rate: float = Field(0.01, gt=0, description="of the students' SGD")
    # views of labelled images in the students' training: scores are learned without
    crop_area: float = Field(0.8, gt=0, le=1, description="smallest area of a random crop while labels are learned")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image; none: 0.5 for colour, 0 for grey"
    )
    rotation: float = Field(5.0, ge=0, le=180, description="largest rotation in degrees while labels are learned")

    def queries(self, n_public: int) -> int:
        """Return what asking costs: public images, views of them and mixtures."""
        return self.public_queries(n_public) + self.mixtures * n_public

    def student_settings(self) -> StudentSettings:
        """Return how students learn scores."""
        return StudentSettings(
            network=self.student_network, widths=self.student_widths, epochs=self.student_epochs,
            batch_size=self.student_batch_size, learning_rate=self.student_learning_rate,
        )  # fmt: skip

    def surrogate_settings(self, n_images: int) -> SurrogateSettings:
        """Return how students learn labels of so many images."""
        return SurrogateSettings(
            network=self.student_network, widths=self.student_widths,
            steps=self.student_epochs * -(-n_images // self.student_batch_size), batch_size=self.student_batch_size,
            learning_rate=self.student_learning_rate,
        )  # fmt: skip

    def views_learned(self, channels: int) -> Augmentation:
        """Return the random views of labelled images."""
        flip = default_flip(channels, self.flip)
        return Augmentation(self.crop_area, flip, self.rotation, brightness=0.0, contrast=0.0)
