"""Random circular shifts and mirror images, the same for all images of a group.

Source: Yin et al., CVPR 2020: the whole batch is shifted by one draw and mirrored by another in every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["N_NUMBERS", "jittered"]

N_NUMBERS = 3
"""Random numbers that a group needs in a step: shift down, shift right, mirror."""


def jittered(groups: Tensor, numbers: Tensor, *, limit: int, flip: float) -> Tensor:
    """Shift groups (B, G, C, H, W) circularly by up to ``limit`` pixels either way and mirror them.

    numbers: (B, N_NUMBERS) in [0, 1); flip: the probability of a mirror image. Differentiable in the groups.
    """
    if limit == 0 and flip == 0:
        return groups
    down, right = _shifts(numbers[:, :2], limit).unbind(1)
    rows = _sources(down, groups.shape[-2])
    columns = _sources(right, groups.shape[-1])
    columns = torch.where((numbers[:, 2] < flip)[:, None], columns.flip(1), columns)
    moved = torch.take_along_dim(groups, rows[:, None, None, :, None], dim=-2)
    return torch.take_along_dim(moved, columns[:, None, None, None, :], dim=-1)


def _shifts(numbers: Tensor, limit: int) -> Tensor:
    return (numbers * (2 * limit + 1)).long().clamp(max=2 * limit) - limit


def _sources(shifts: Tensor, size: int) -> Tensor:
    """Return for each target pixel the pixel that it shows, (B, size)."""
    return (torch.arange(size, device=shifts.device) - shifts[:, None]) % size
