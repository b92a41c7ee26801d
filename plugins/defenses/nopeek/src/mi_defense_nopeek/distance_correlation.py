"""Distance correlation of two sets of rows: the statistic that is trained with, and the one to report.

Szekely, Rizzo, Bakirov: "Measuring and testing dependence by correlation of distances", Annals of Statistics 2007;
Szekely, Rizzo: "The distance correlation t-test of independence in high dimension", J. Multivariate Analysis 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-7  # the derivative of the square root is infinite at 0


def distances(rows: Tensor) -> Tensor:
    """Return the Euclidean distances (n, n) of rows (n, ...), in float32 at least."""
    flat = rows.flatten(1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    centred = flat - flat.mean(dim=0)  # smaller numbers, smaller rounding errors
    with torch.autocast(flat.device.type, enabled=False):
        found = torch.cdist(centred, centred)
    return found * ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)  # rounding leaves no exact 0 there


def distance_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return dCor, from 0 to 1, of n samples (n, ...) and (n, ...); 0 when either is constant.

    It is near 1 for independent samples of many dimensions: a loss, not a measure of leakage.
    """
    a, b = (_doubly_centred(distances(rows)) for rows in (one, other))
    squared = (a * b).mean() / _scale((a * a).mean() * (b * b).mean())
    return squared.clamp(min=SMALLEST).sqrt()


def unbiased_squared(one: Tensor, other: Tensor) -> Tensor:
    """Return the bias-corrected dCor^2 of n samples, about 0 or below for independent ones, at most 1.

    Raises: ValueError for fewer than 4 samples.
    """
    if len(one) < 4:
        raise ValueError(f"the bias can only be corrected for 4 samples or more, not for {len(one)}")
    a, b = (_u_centred(distances(rows)) for rows in (one, other))
    found: Tensor = (a * b).sum() / _scale((a * a).sum() * (b * b).sum())
    return found


def _scale(product: Tensor) -> Tensor:
    return product.clamp(min=torch.finfo(product.dtype).tiny).sqrt()


def _doubly_centred(matrix: Tensor) -> Tensor:
    """Subtract the means of rows and columns: A of the V-statistic."""
    return matrix - matrix.mean(dim=0) - matrix.mean(dim=1, keepdim=True) + matrix.mean()


def _u_centred(matrix: Tensor) -> Tensor:
    """Return the U-centred matrix, 0 on the diagonal."""
    n = len(matrix)
    inner = (
        matrix - (matrix.sum(dim=0) + matrix.sum(dim=1, keepdim=True)) / (n - 2) + matrix.sum() / ((n - 1) * (n - 2))
    )
    return inner * ~torch.eye(n, dtype=torch.bool, device=matrix.device)
