"""Losses that raise a generator's density around a set of images, and the distance that they are made of.

Source: Peng et al., "Pseudo-Private Data Guided Model Inversion Attacks", NeurIPS 2024: point-wise tuning, conditional
transport and maximum mean discrepancy.

All take features of generated images (N, d) and of pseudo-private ones (M, d) and return one number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Density = Callable[[Tensor, Tensor], Tensor]

SCALES = (1, 2, 4)
"""Sides of the squares over which images are averaged."""
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Kernel widths in units of the mean squared distance (five kernels, as in the authors' code)."""


def pyramid(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] as features (N, d): pixels at several scales, each with the same weight.

    The squared distance of two rows is the sum over scales of the mean squared difference.
    """
    levels = [functional.avg_pool2d(images, scale).flatten(1) for scale in SCALES if scale <= min(images.shape[2:])]
    return torch.cat([level / level.shape[1] ** 0.5 for level in levels], dim=1)


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return squared Euclidean distances (N, M) of rows (N, d) and (M, d)."""
    return (one[:, None] - other[None]).square().sum(dim=2)


def transport(generated: Tensor, wanted: Tensor) -> Tensor:
    """Return the conditional transport cost: from each side likelier to what is near, both ways averaged.

    Source: Zheng & Zhou, "Exploiting Chain Rule and Bayes' Theorem to Compare Probability Distributions", NeurIPS 2021.
    """
    costs = squared_distances(generated, wanted)
    nearness = -costs / costs.detach().mean().clamp(min=1e-12)
    there = (nearness.softmax(dim=1) * costs).sum(dim=1).mean()
    back = (nearness.softmax(dim=0) * costs).sum(dim=0).mean()
    return (there + back) / 2


def mean_discrepancy(generated: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy under five Gaussian kernels (biased estimate, never negative).

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012.
    """
    rows = torch.cat([generated, wanted])
    distances = squared_distances(rows, rows)
    n = len(rows)
    width = distances.detach().sum() / max(n * (n - 1), 1) + 1e-12
    kernel = torch.stack([torch.exp(-distances / (width * factor)) for factor in BANDWIDTHS]).mean(dim=0)
    split = len(generated)
    within = kernel[:split, :split].mean() + kernel[split:, split:].mean()
    return within - 2 * kernel[:split, split:].mean()


DENSITIES: dict[str, Density] = {"transport": transport, "mmd": mean_discrepancy}
