"""What is told of single queries, and the statistics of windows of them: pure functions, many windows at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SIGNALS = ("concentration", "self_similarity", "ascent", "shift")
IMAGE_SIDE = 8
VECTOR_LENGTH = 256


# single queries -------------------------------------------------------------------------------------------


def described(scores: Tensor) -> Tensor:
    """Return of each answer (N, K) its label, largest score and entropy in nats, float32 (N, 3)."""
    top, label = scores.float().max(dim=1)
    entropy = torch.special.entr(scores.float().clamp(min=0)).sum(dim=1)
    return torch.stack([label.float(), top, entropy], dim=1)


def vectors_of(samples: Any) -> Tensor | None:
    """Return samples as vectors (N, d) to measure distances in, or None for samples that are no tensors of numbers.

    Images (N, C, H, W) are averaged to at most 8 x 8 px, all else to at most 256 values.
    """
    if not isinstance(samples, Tensor) or not samples.is_floating_point() or samples.ndim < 2:
        return None
    if samples.ndim == 4:
        height, width = (min(size, IMAGE_SIDE) for size in samples.shape[2:])
        return functional.adaptive_avg_pool2d(samples.float(), (height, width)).flatten(1)
    flat = samples.float().flatten(1)
    return functional.adaptive_avg_pool1d(flat[:, None], min(flat.shape[1], VECTOR_LENGTH))[:, 0]


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distances (A, B) of vectors, exact also where they are small."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def has_near_predecessor(new: Tensor, earlier: Tensor, distance: float) -> Tensor:
    """Tell of each new vector (N, d) whether an earlier one, or a new one before it, is at most ``distance`` away."""
    order = torch.arange(len(new), device=new.device)
    among = (distances(new, new) <= distance) & (order[None, :] < order[:, None])
    return among.any(dim=1) | (distances(new, earlier) <= distance).any(dim=1)


# windows --------------------------------------------------------------------------------------------------


def concentration(labels: Tensor, shares: Tensor) -> Tensor:
    """Return how far the most over-represented class of windows (B, n) exceeds its share among ``shares`` (K,)."""
    ones = torch.ones(labels.shape, dtype=shares.dtype)
    counts = torch.zeros(len(labels), len(shares), dtype=shares.dtype).scatter_add(1, labels, ones)
    return (counts / labels.shape[1] - shares).amax(dim=1)


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks within each row (B, n), from 0, float64; equal values share the mean of theirs."""
    ordered, values = values.sort(dim=1).values.contiguous(), values.contiguous()
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + up_to - 1).double() / 2


def ascent(values: Tensor) -> Tensor:
    """Return Spearman's rank correlation of values (B, n) with their place in the row, (B,); 0 for constant rows."""
    ranks = average_ranks(values)
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    places = torch.arange(values.shape[1], dtype=torch.float64)
    places = places - places.mean()
    scale = (ranks.square().sum(dim=1) * places.square().sum()).sqrt()
    return (ranks * places).sum(dim=1) / scale.clamp(min=1e-12)


def shift(values: Tensor, reference: Tensor) -> Tensor:
    """Return the Kolmogorov-Smirnov distance of each row (B, n) to sorted reference values (N,), (B,) in [0, 1].

    Between two reference values their distribution function is constant and the row's only rises, so the largest
    difference is at a reference value or just before one.
    """
    ordered = values.sort(dim=1).values.contiguous()
    grid, own = reference.expand(len(values), -1).contiguous(), reference.contiguous()
    worst = torch.zeros(len(values), dtype=torch.float64)
    for right in (False, True):
        found = torch.searchsorted(ordered, grid, right=right).double() / values.shape[1]
        expected = torch.searchsorted(own, own, right=right).double() / len(own)
        worst = torch.maximum(worst, (found - expected).abs().amax(dim=1))
    return worst
