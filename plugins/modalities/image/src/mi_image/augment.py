"""Differentiable, batched image augmentation: one affine warp and one colour step, random numbers given.

Every row has its own parameters, so a row's result does not depend on which other rows share its batch.

Source: "PLG-aug" of Yuan et al. (AAAI 2023), authors' code: random resized crop (area .8-1, ratio 1),
colour jitter (brightness .2, contrast .2), horizontal flip (.5), rotation (5 degrees), composed from
kornia modules.

Fidelity notes (paper / authors' code / here)
- The authors resample twice (crop, then rotation) and fill corners with black. Here crop, flip and
  rotation are one affine map that is resampled once, and the border is mirrored.
- Brightness multiplies and contrast blends with the image's mean, in this order, and the result is clamped
  to [0, 1] (torchvision's definition; kornia's order is random).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class UniformSource(Protocol):
    """What the augmentation needs of a random source; `micore.runtime.Random` has it."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Return float32 numbers in [0, 1) of this shape."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """Ranges of a random warp and colour change; the defaults are PLG-aug. All ranges empty: the identity.

    crop_area: smallest part of the image area that a crop keeps, in (0, 1]; the crop lies anywhere inside
    the image.
    flip: probability of a horizontal mirror image; 0 for digits and text, which are not symmetric.
    rotation: largest angle in degrees, either way.
    brightness, contrast: largest relative change, either way.
    colour_probability: share of the images whose colours change (authors: .5 in GAN training, 1 in the
    attack).
    """

    crop_area: float = 0.8
    flip: float = 0.5
    rotation: float = 5.0
    brightness: float = 0.2
    contrast: float = 0.2
    colour_probability: float = 1.0

    n_numbers = 8

    def draw(self, rng: UniformSource, n: int) -> Tensor:
        """Draw the random numbers for n images: (n, n_numbers) in [0, 1), as many whatever the ranges."""
        return rng.uniform((n, self.n_numbers))

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [0, 1] by numbers (B, n_numbers): same shape and range."""
        return self._recolour(self._warp(images, numbers), numbers)

    def _warp(self, images: Tensor, numbers: Tensor) -> Tensor:
        if self.crop_area == 1 and self.flip == 0 and self.rotation == 0:
            return images
        grid = _sampling_grid(self._affine(numbers), images.shape[2], images.shape[3])
        return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def _affine(self, numbers: Tensor) -> Tensor:
        """Return (B, 2, 3), from output to input coordinates in [-1, 1]: rotation, then flip, then crop."""
        area, right, down, flip, turn = numbers[:, :5].unbind(1)
        side = torch.sqrt(1 - (1 - self.crop_area) * area)
        mirror = 1 - 2 * (flip < self.flip).to(side.dtype)
        angle = math.radians(self.rotation) * (2 * turn - 1)
        cosine, sine = side * torch.cos(angle), side * torch.sin(angle)
        top = torch.stack([mirror * cosine, -mirror * sine, (1 - side) * (2 * right - 1)], dim=1)
        bottom = torch.stack([sine, cosine, (1 - side) * (2 * down - 1)], dim=1)
        return torch.stack([top, bottom], dim=1)

    def _recolour(self, images: Tensor, numbers: Tensor) -> Tensor:
        if self.brightness == 0 and self.contrast == 0:
            return images
        brightness, contrast = self._colour_factors(numbers)
        images = (images * brightness).clamp(0, 1)
        grey = images.mean(dim=(1, 2, 3), keepdim=True)
        return (grey + contrast * (images - grey)).clamp(0, 1)

    def _colour_factors(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        bright, contrast, gate = numbers[:, 5:, None, None, None].unbind(1)
        active = (gate < self.colour_probability).to(bright.dtype)
        return 1 + active * self.brightness * (2 * bright - 1), 1 + active * self.contrast * (2 * contrast - 1)


def _sampling_grid(affine: Tensor, height: int, width: int) -> Tensor:
    """Return (B, height, width, 2) as `affine_grid` does, but elementwise: autocast rounds its product."""
    rows = (2 * torch.arange(height, device=affine.device) + 1) / height - 1
    columns = (2 * torch.arange(width, device=affine.device) + 1) / width - 1
    across, along, offset = affine[:, None, None].unbind(-1)
    return across * columns[None, None, :, None] + along * rows[None, :, None, None] + offset
