"""Likeness of pairs of images: PSNR and SSIM, over all pixels or over some of them.

Sources: SSIM of Wang, Bovik, Sheikh, Simoncelli (IEEE TIP 2004) as torchmetrics computes it (Gaussian window of
11 pixels, standard deviation 1.5, mirrored border). All values are made in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

LEAST_ERROR = 1 / (12 * 255**2)
"""Mean squared error of rounding to 8 bits; smaller ones count as this, so PSNR is at most 58.9 dB."""
SMALLEST_SIDE = 6
"""The window of SSIM, with its mirrored border, needs this many pixels."""


def readable(images: Tensor, truth: Tensor) -> Tensor:
    """Return images (N, C, H, W) in [0, 1]; what is no number lies as far from the truth (N, C, H, W) as it can.

    Were it left out, an attack would look better for every sample that it spoils.
    """
    farthest = (truth < 0.5).to(truth)
    return torch.where(images.isfinite(), images.clamp(0, 1), farthest)


def psnr(images: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, (N,), over pixels by weights (N, 1, H, W); NaN without any."""
    error = weighted_mean((images.double() - truth.double()).square(), weights)
    return -10 * error.clamp_min(LEAST_ERROR).log10()


def ssim_maps(images: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity around every pixel, (N, C, H, W) in [-1, 1]; NaN for too small images."""
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        return torch.full_like(images, torch.nan, dtype=torch.float64)
    found = structural_similarity_index_measure(
        images.double(), truth.double(), data_range=1.0, reduction="none", return_full_image=True
    )
    maps: Tensor = found[1]
    return maps


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of values (N, C, H, W) by weights (N, 1, H, W) for each row, (N,); NaN where all are 0."""
    weights = weights.to(values).expand_as(values)
    return (values * weights).flatten(1).sum(dim=1) / weights.flatten(1).sum(dim=1)
