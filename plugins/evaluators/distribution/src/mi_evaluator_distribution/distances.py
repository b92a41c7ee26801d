"""Distances and overlaps of two sets of features, in float64.

`frechet`: Heusel et al., NIPS 2017. `squared_mmd`: Binkowski et al., ICLR 2018. `manifolds`: precision and recall of
Kynkaanniemi et al., NeurIPS 2019; density and coverage of Naeem et al., ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 512
"""Rows of kernels that are in memory at a time."""


def frechet(one: Tensor, two: Tensor) -> float:
    """Return the Frechet distance of normal distributions fitted to features (N, d) and (M, d); NaN below two rows.

    Covariances are unbiased. The trace of the root of their product is the sum of the singular values of A B', where
    A and B are the centred rows over the roots of their numbers less one: that is exact for any ranks, and small where
    there are fewer rows than dimensions. Where there are more it is that of the roots themselves.
    """
    if min(len(one), len(two)) < 2:
        return float("nan")
    (mean, rows), (other, other_rows) = (_centred(part.double()) for part in (one, two))
    if min(len(one), len(two)) < one.shape[1]:
        inner = torch.linalg.svdvals(rows @ other_rows.T).sum()
    else:
        root = _root(rows.T @ rows)
        inner = torch.linalg.eigvalsh(root @ (other_rows.T @ other_rows) @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other).square().sum() + rows.square().sum() + other_rows.square().sum() - 2 * inner
    return float(distance.clamp(min=0))


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of rows (N, d), and what is left of them, scaled so that its product is the covariance."""
    mean = rows.mean(dim=0)
    return mean, (rows - mean) / (len(rows) - 1) ** 0.5


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def kernels(one: Tensor, two: Tensor) -> Tensor:
    """Return (x y / d + 1)^3 of each pair of features (N, d) and (M, d), (N, M)."""
    return (one.double() @ two.double().T / one.shape[1] + 1) ** 3


@dataclass(frozen=True)
class Within:
    """Kernels of a set with itself, by class: sums (C, C) without those of a sample with itself, and counts (C,)."""

    sums: Tensor
    counts: Tensor

    def only(self, places: Tensor) -> Within:
        """Return some classes."""
        return Within(self.sums[places][:, places], self.counts[places])

    @property
    def alone(self) -> bool:
        """Whether a class has one sample only, so that nothing is known of two of it."""
        return bool((self.counts < 2).any())

    def mean(self, times: Tensor) -> Tensor:
        """Return the mean kernel of two samples, (R,), where each class counts so often, times (R, C); NaN if none.

        A sample is no pair with itself, nor with a copy of it where its class counts twice. How many samples a class
        has is given and not drawn, so that means are taken for each pair of classes first: over all pairs at once, two
        of one class would come too seldom. That is done where a class has one sample only.
        """
        if self.alone:
            pairs = (times @ self.counts).square() - times.square() @ self.counts
            summed = ((times @ self.sums) * times).sum(dim=1)
            return torch.where(pairs > 0, summed / pairs, torch.nan)
        pairs = self.counts[:, None] * self.counts - self.counts.diag()
        weights = times * self.counts
        shares = weights / weights.sum(dim=1, keepdim=True)
        return ((shares @ (self.sums / pairs)) * shares).sum(dim=1)


def within(rows: Tensor, places: Tensor, n_classes: int) -> Within:
    """Sum kernels of a set (N, d) with itself; places: the class of each row, int64 (N,)."""
    sums = _summed(rows, places, rows, places, n_classes, same=True)
    return Within(sums, torch.bincount(places, minlength=n_classes).double())


def between(one: Tensor, places: Tensor, two: Tensor, other_places: Tensor, n_classes: int) -> Tensor:
    """Sum kernels of two sets (N, d) and (M, d) by class, (C, C)."""
    return _summed(one, places, two, other_places, n_classes, same=False)


def _summed(
    one: Tensor, places: Tensor, two: Tensor, other_places: Tensor, n_classes: int, *, same: bool
) -> Tensor:  # fmt: skip
    """Make kernels of a block of rows at a time, so that memory does not grow with their number."""
    sums = torch.zeros(n_classes, n_classes, dtype=torch.float64)
    for rows in torch.arange(len(one)).split(BLOCK):
        block = kernels(one[rows], two)
        if same:
            block[torch.arange(len(rows)), rows] = 0
        by_class = torch.zeros(len(rows), n_classes, dtype=torch.float64).index_add_(1, other_places, block)
        sums.index_add_(0, places[rows], by_class)
    return sums


def squared_mmd(own: Within, other: Within, both: Tensor, times: Tensor) -> Tensor:
    """Return the unbiased squared maximum mean discrepancy, (R,), where each class counts so often, times (R, C).

    both: the kernels between the sets, summed by class (C, C). NaN where a set has fewer than two samples. It is 0 on
    average, and may be below 0, where both sets are of one distribution, whatever their sizes.
    """
    across = ((times @ both) * times).sum(dim=1) / ((times @ own.counts) * (times @ other.counts))
    return own.mean(times) + other.mean(times) - 2 * across


@dataclass(frozen=True)
class Overlap:
    """What each reconstruction (N,) and each private sample (M,) has of the other set.

    precision (N,): lies within the ball of a private sample; density (N,): in how many, over k; recall (M,): lies in
    the ball of a reconstruction; coverage (M,): a reconstruction lies within its ball. A ball reaches to the k-th
    nearest sample of the same set.
    """

    precision: Tensor
    density: Tensor
    recall: Tensor
    coverage: Tensor


def manifolds(found: Tensor, private: Tensor, k: int) -> Overlap | None:
    """Compare features (N, d) and (M, d); None where a set has fewer than k + 2 rows."""
    if min(len(found), len(private)) < k + 2:
        return None
    distances = _distances(found, private)
    of_private, of_found = _radii(private, k), _radii(found, k)
    inside = distances < of_private  # (N, M): in the ball of each private sample
    return Overlap(
        precision=inside.any(dim=1).double(), density=inside.double().sum(dim=1) / k,
        recall=(distances < of_found[:, None]).any(dim=0).double(), coverage=inside.any(dim=0).double(),
    )  # fmt: skip


def _radii(rows: Tensor, k: int) -> Tensor:
    """Return the distance from each row to the k-th nearest other one, (N,)."""
    return _distances(rows, rows).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values


def _distances(one: Tensor, two: Tensor) -> Tensor:
    return torch.cdist(one.double(), two.double(), compute_mode="donot_use_mm_for_euclid_dist")
