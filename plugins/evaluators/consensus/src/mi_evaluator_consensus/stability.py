"""Small changes that a person would not mind: noise of any tensor, blur of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from micore.contracts import Samples
from micore.kit.measuring import Rows
from micore.runtime import Runtime

PICTURES = 4
"""Dimensions of pictures: (N, channels, height, width)."""


def noisy(rows: Rows, strength: float, bounds: tuple[float, float], runtime: Runtime) -> Tensor:
    """Return all samples (N, ...) with Gaussian noise, within the bounds.

    strength: standard deviation as a share of the range. Each case has a stream of its own, so that the noise depends
    on no other case.
    """
    low, high = bounds
    changed = [
        samples + strength * (high - low) * runtime.rng("consensus", "noise", name).normal(samples.shape).cpu()
        for samples, name in zip(_tensors(rows.samples), rows.case_ids, strict=True)
    ]
    return torch.cat(changed).clamp(low, high)


def _tensors(groups: Sequence[Samples]) -> list[Tensor]:
    return [samples.detach().cpu() for samples in groups]


def blurred(pictures: Tensor, deviation: float) -> Tensor:
    """Return pictures (N, C, H, W) after a Gaussian blur; deviation in pixels, 0 changes nothing.

    Pixels beyond the edge are like those at the edge.
    """
    if deviation == 0:
        return pictures
    radius = math.ceil(3 * deviation)
    places = torch.arange(-radius, radius + 1, dtype=pictures.dtype, device=pictures.device)
    weights = torch.exp(-places.square() / (2 * deviation**2))
    weights = weights / weights.sum()
    channels = pictures.shape[1]
    padded = functional.pad(pictures, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
