"""Random changes of training images that keep their class: one affine warp, then colour, noise and cutout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from micore.runtime import Random

_NUMBERS = 11


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Largest changes, either way.

    shift: part of the side. rotation: degrees. zoom, brightness, contrast: relative. noise: its deviation.
    cutout: side of an erased square as part of the image's side; half of the images get one.
    """

    shift: float
    rotation: float
    zoom: float
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    def __call__(self, images: Tensor, rng: Random) -> Tensor:
        """Change images (N, C, H, W) in [0, 1], each in its own way; same shape and range."""
        if not len(images):
            return images
        numbers = rng.uniform((len(images), _NUMBERS)).to(images)
        changed = self._recolour(self._warp(images, numbers), numbers)
        if self.noise:
            level = self.noise * _cell(numbers[:, 7])
            changed = changed + level * rng.normal(images.shape).to(images)
        return self._erase(changed, numbers).clamp(0, 1)

    def _warp(self, images: Tensor, numbers: Tensor) -> Tensor:
        right, down, turn, zoom, flip = numbers[:, :5].unbind(1)
        angle = math.radians(self.rotation) * _signed(turn)
        scale = 1 + self.zoom * _signed(zoom)
        mirror = torch.where(flip < 0.5, -1.0, 1.0) if images.shape[1] == 3 else torch.ones_like(flip)
        cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
        # The grid spans [-1, 1], so a shift by a part of the side is twice that part.
        top = torch.stack([mirror * cosine, -mirror * sine, 2 * self.shift * _signed(right)], dim=1)
        bottom = torch.stack([sine, cosine, 2 * self.shift * _signed(down)], dim=1)
        grid = functional.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _recolour(self, images: Tensor, numbers: Tensor) -> Tensor:
        if not (self.brightness or self.contrast):
            return images
        brightness = 1 + self.brightness * _signed(_cell(numbers[:, 5]))
        contrast = 1 + self.contrast * _signed(_cell(numbers[:, 6]))
        bright = images * brightness
        centre = bright.mean(dim=(1, 2, 3), keepdim=True)
        return centre + contrast * (bright - centre)

    def _erase(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Paint a square with the image's mean, at a random place that may reach over the border."""
        if not self.cutout:
            return images
        height, width = images.shape[-2:]
        rows = (torch.arange(height, device=images.device) + 0.5).view(1, 1, -1, 1) / height
        columns = (torch.arange(width, device=images.device) + 0.5).view(1, 1, 1, -1) / width
        near = ((rows - _cell(numbers[:, 8])).abs() < self.cutout / 2) & (
            (columns - _cell(numbers[:, 9])).abs() < self.cutout / 2
        )
        mask = near & (_cell(numbers[:, 10]) < 0.5)
        return torch.where(mask, images.mean(dim=(1, 2, 3), keepdim=True), images)


STRENGTHS: Mapping[str, Jitter | None] = {
    "none": None,
    "light": Jitter(shift=0.06, rotation=8, zoom=0.07),
    "medium": Jitter(shift=0.1, rotation=15, zoom=0.15, brightness=0.2, contrast=0.3, noise=0.05),
    "strong": Jitter(shift=0.1, rotation=15, zoom=0.15, brightness=0.2, contrast=0.3, noise=0.05, cutout=0.3),
}
"""Unless the strength is none, colour images are mirrored at random as well; digits are not symmetric."""


def _signed(numbers: Tensor) -> Tensor:
    return 2 * numbers - 1


def _cell(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 1, 1)
