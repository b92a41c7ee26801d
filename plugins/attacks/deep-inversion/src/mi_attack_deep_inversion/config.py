"""Settings of DeepInversion: the defaults of single fields are the published ones for ImageNet ("setting 0")."""

from __future__ import annotations

from pydantic import Field

from micore.contracts import Config


class DeepInversionConfig(Config):
    """Settings of DeepInversion; presets change them."""

    # groups
    restarts: int = Field(4, ge=1, description="images of a class; they share a group (paper: a random share of 84)")
    companions: int = Field(
        80, ge=0, description="images of other classes in the group, made for their statistics only (paper: the others)"
    )
    # schedule
    low_steps: int = Field(2000, ge=0, description="first steps, on images of half the size (paper: 2000)")
    steps: int = Field(1000, ge=1, description="steps on images of full size (paper: 1000)")
    learning_rate: float = Field(0.25, gt=0, description="of Adam (paper: 0.2 to 0.25), anew in both parts")
    betas: tuple[float, float] = Field((0.5, 0.9), description="of Adam (paper: 0.5, 0.9)")
    warm_up: int = Field(100, ge=0, description="steps in which the learning rate rises; then it falls (paper: 100)")
    # loss
    statistics_weight: float = Field(0.05, ge=0, description="of the batch-norm statistics (paper: 0.01 to 0.05)")
    first_layer_weight: float = Field(10.0, ge=0, description="of the first batch-norm layer among all (paper: 10)")
    total_variation_weight: float = Field(1e-4, ge=0, description="of the L2 total variation (paper: 1e-4)")
    total_variation_l1_weight: float = Field(0.0, ge=0, description="of the L1 total variation (paper: 0)")
    norm_weight: float = Field(1e-5, ge=0, description="of the images' L2 norm (paper: 1e-5)")
    # jitter
    jitter: int = Field(30, ge=0, description="largest circular shift in pixels, half of it at half size (paper: 30)")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image (paper: 0.5); none: 0.5 for colour, 0 for grey"
    )
    # adaptive variant
    competition_weight: float = Field(
        0.0, ge=0, description="of disagreement with a student, for adaptive DeepInversion (paper: 0.2); 0: no student"
    )
    student_rounds: int = Field(1, ge=1, description="rounds of images and student; all but the first compete")
    student_images: int = Field(50, ge=1, description="images per class that the student learns from, each round")
    student_width: int = Field(16, ge=1, description="channels of the student's first layer")
    student_epochs: int = Field(60, ge=1, description="passes of the student over its images")
    student_learning_rate: float = Field(0.05, gt=0, description="of the student's SGD")

    @property
    def group_size(self) -> int:
        """Images whose statistics count together."""
        return self.restarts + self.companions
