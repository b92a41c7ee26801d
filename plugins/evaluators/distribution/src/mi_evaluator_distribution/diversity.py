"""Whether the reconstructions of a class differ from each other: an attack may find one picture, and find it again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

TWINS = 0.99
"""Cosine above which two reconstructions are duplicates."""


def spread(found: Tensor) -> float:
    """Return the mean of 1 - cosine over pairs of features (N, d); NaN below two rows."""
    return float((1 - _pairs(found)).clamp(min=0).mean())


def duplicates(found: Tensor) -> float:
    """Return the share of features (N, d) that have a twin among the others; NaN below two rows."""
    if len(found) < 2:
        return float("nan")
    cosines = _cosines(found).fill_diagonal_(-torch.inf)
    return float((cosines > TWINS).any(dim=1).double().mean())


def nearest_hit(found: Tensor, private: Tensor) -> int:
    """Count the private samples (M, d) that are the nearest, by L2 distance, of at least one of (N, d)."""
    distances = torch.cdist(found.double(), private.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return len(distances.argmin(dim=1).unique())


def _cosines(found: Tensor) -> Tensor:
    unit = normalize(found.double())
    return unit @ unit.T


def _pairs(found: Tensor) -> Tensor:
    above = torch.triu_indices(len(found), len(found), offset=1)
    return _cosines(found)[above[0], above[1]]
