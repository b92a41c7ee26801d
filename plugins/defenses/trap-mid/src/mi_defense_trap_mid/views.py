"""Random views of pictures, so that a trigger works however an attack looks at it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["random_views"]


def random_views(inputs: Tensor, crop_area: float, rotation: float, flip: float) -> Tensor:
    """Return each picture (N, C, H, W) cropped, turned and mirrored, from the global generator; others unchanged.

    A picture is cropped with probability 0.5 to a part of at least ``crop_area``, turned with probability 0.5 by up to
    ``rotation`` degrees either way, and mirrored with probability ``flip``; one warp, its border repeated.
    """
    if inputs.ndim != 4 or (crop_area == 1 and rotation == 0 and flip == 0):
        return inputs
    numbers = torch.rand(7, len(inputs), device=inputs.device)
    side = torch.where(numbers[0] < 0.5, (1 - (1 - crop_area) * numbers[1]).sqrt(), 1.0)
    angle = torch.where(numbers[2] < 0.5, math.radians(rotation) * (2 * numbers[3] - 1), 0.0)
    mirror = torch.where(numbers[4] < flip, -1.0, 1.0)
    right, down = (1 - side) * (2 * numbers[5] - 1), (1 - side) * (2 * numbers[6] - 1)
    cosine, sine = side * angle.cos(), side * angle.sin()
    top = torch.stack([mirror * cosine, -mirror * sine, right], dim=1)
    bottom = torch.stack([sine, cosine, down], dim=1)
    grid = functional.affine_grid(torch.stack([top, bottom], dim=1), list(inputs.shape), align_corners=False)
    return functional.grid_sample(inputs, grid.to(inputs.dtype), padding_mode="border", align_corners=False)
