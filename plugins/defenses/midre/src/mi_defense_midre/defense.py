"""Random erasing of training samples.

Tran, Nguyen, Mai, Vandierendonck, Assent, Kot, Cheung: "Random Erasing vs. Model Inversion: A Promising Defense
or a False Hope?", TMLR 2025 (arXiv:2409.01062), "MIDRE".

A square at a random place is erased from every training sample, each time it is seen: the model never sees one
whole, and what an inversion finds is made after samples with holes.

Threat model: any adversary; nothing but the training data changes.

Fidelity notes (paper / authors' code / here)
- Area: uniform between 0.1 and 0.4, or 0.8 in the strong setting, of every sample, as in the authors' code;
  also that it comes last, behind augmentation and normalisation.
- Fill: the authors write the ImageNet means of the range [0, 1] into samples that are normalised to [-1, 1],
  which gives a light grey (0.743, 0.728, 0.703). ``fill="paper"`` does the same; samples of other than three
  channels get the mean of the three values. ``"mean"`` is the mean of the batch in each channel, ``"random"``
  is normal noise.
- Place: uniform over all places where the square fits, as in the authors' code. That draws the area up to ten
  times until the square is smaller than the sample; here a square that is not becomes one value smaller than
  the shorter side, and each sample has its own in one step without a loop.
- Samples (B, C, T) and waveforms (B, T) lose an interval and (B, C, D, H, W) a cube, of the same share; the paper has
  images only.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from micore.contracts import Config, Defense
from micore.errors import ModelError

Fill = Literal["paper", "mean", "random"]
IMAGENET_MEANS = (0.485, 0.456, 0.406)


class RandomErasingConfig(Config):
    """Settings of the defense."""

    smallest: float = Field(0.1, gt=0, lt=1, description="least share of a sample that is erased; paper: 0.1")
    largest: float = Field(
        0.4, gt=0, lt=1, description="largest share of a sample that is erased; paper: 0.4, and 0.8 as a strong setting"
    )
    fill: Fill = Field(
        "mean",
        description="what stands there: mean (of the batch), paper (the authors' constant) or random (normal noise)",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest={self.smallest} is larger than largest={self.largest}")
        return self


class RandomErasing(Defense):
    """Erase a random square of every training sample."""

    Config: ClassVar[type[Config]] = RandomErasingConfig
    config: RandomErasingConfig
    per_sample_loss = True  # the guarantee of dp-sgd holds beside it

    def adapt_inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return inputs (B, C, H, W) with a square of each erased, or waveforms (B, T) with an interval."""
        if isinstance(inputs, Tensor) and inputs.ndim == 2:
            return self.adapt_inputs(inputs[:, None], labels)[:, 0]
        _check(inputs)
        config = self.config
        erased = random_squares(inputs, config.smallest, config.largest)
        return torch.where(erased, filling(inputs, config.fill), inputs)


def _check(inputs: Tensor) -> None:
    """Raise ModelError for inputs that have no places, or too few, to erase."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 3 or min(inputs.shape[2:]) < 2:
        what = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ModelError(
            f"midre erases squares of images (B, C, H, W) or intervals of signals (B, C, T); the model takes {what}",
            hint="another defense for this model",
        )


def random_squares(inputs: Tensor, smallest: float, largest: float) -> Tensor:
    """Draw a square for each sample (B, C, *places), in a mask (B, 1, *places) that is true inside."""
    batch, sizes = len(inputs), inputs.shape[2:]
    draws = torch.rand((1 + len(sizes), batch), device=inputs.device)
    areas = (smallest + (largest - smallest) * draws[0]) * math.prod(sizes)
    sides = areas.pow(1 / len(sizes)).round().clamp(1, min(sizes) - 1)
    mask = torch.ones((batch, 1, *sizes), dtype=torch.bool, device=inputs.device)
    for axis, (size, draw) in enumerate(zip(sizes, draws[1:], strict=True)):
        free = size - sides
        starts = (draw * (free + 1)).floor().minimum(free)[:, None]  # rounding may reach the end of the range
        places = torch.arange(size, device=inputs.device)
        inside = (places >= starts) & (places < starts + sides[:, None])
        mask = mask & inside.view(batch, 1, *(size if other == axis else 1 for other in range(len(sizes))))
    return mask


def filling(inputs: Tensor, fill: Fill) -> Tensor:
    """Return what stands in erased places, of a shape that fits the inputs."""
    if fill == "random":
        return torch.randn_like(inputs)
    if fill == "mean":
        return inputs.mean(dim=[0, *range(2, inputs.ndim)], keepdim=True)
    if inputs.shape[1] != len(IMAGENET_MEANS):
        return inputs.new_full((), sum(IMAGENET_MEANS) / len(IMAGENET_MEANS))
    return inputs.new_tensor(IMAGENET_MEANS).view(1, -1, *(1 for _ in inputs.shape[2:]))
