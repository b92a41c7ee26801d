"""Intervals for measured rates and means, honest about what is independent.

The reconstructions of one class share a target, a prior and a class: the class is the unit of independence,
not the row. With real differences between classes an interval over rows is several times too narrow (a
factor of 3.6 for 50 classes of 50 images in our simulation), so every interval here resamples or counts
*clusters*. Needs numpy only, never torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval", "cluster_bootstrap", "holm", "paired_difference", "percentile_interval", "sign_flip_test", "wilson",
]  # fmt: skip

Floats = NDArray[np.float64]
ROUNDING = 1e-12  # relative differences below this are rounding errors
EXACT_PAIRS = 12  # pairs whose signs are all tried, 4,096 ways
BLOCK_ENTRIES = 4_000_000  # resampled indices held in memory at once


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval.

    ``low`` and ``high`` are infinite where the data cannot bound the estimate (a mean measured on one
    cluster). ``clusters`` is the number of independent units that the interval rests on; ``method`` says
    how it was made.
    """

    estimate: float
    low: float
    high: float
    level: float
    clusters: int
    method: str


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    rng: np.random.Generator | int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean of ``values`` (N,) with a percentile interval over resampled clusters.

    ``clusters`` (N,) names the cluster of each row (numbers or strings). Whole clusters are drawn with
    replacement, as many as there are, and the statistic is the *ratio estimator*: the mean over all
    resampled rows, total of values by total of rows. Its centre is the plain mean of ``values``, so large
    clusters weigh more; for a macro average pass one row per cluster. Percentile intervals are somewhat too
    narrow below about ten clusters.

    A bootstrap collapses to a point when the clusters do not differ, which would claim certainty. So:

    - values that are all 0 or 1, with one rate in all clusters (0/n and n/n above all) or one cluster only:
      the Wilson interval with the number of *clusters* as n, as if all rows of a cluster were copies;
    - other values from one cluster: an infinite interval;
    - other values with one mean in all clusters: the point, because no scale is known to widen it by.

    Raises ValueError for empty, ragged or non-finite data and for a bad ``level`` or ``resamples``.
    """
    table = _ClusterTable.of(values, clusters)
    if table.is_uninformative:
        low, high, method = _fallback_bounds(table, level)
    else:
        means = np.concatenate([table.means(drawn) for drawn in _draws(len(table), rng, resamples)])
        (low, high), method = percentile_interval(means, level=level), "cluster bootstrap"
    return Interval(estimate=table.mean, low=low, high=high, level=level, clusters=len(table), method=method)


def paired_difference(
    values_a: ArrayLike,
    clusters_a: ArrayLike,
    values_b: ArrayLike,
    clusters_b: ArrayLike,
    *,
    rng: np.random.Generator | int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return ``mean(a) - mean(b)`` for two runs over the same clusters.

    The clusters of both are resampled together. What makes a class easy makes it easy for both runs, so
    pairing removes the spread that they share. The runs may have different numbers of rows.

    Where the difference is the same in every resample (two runs without a hit, or with the same hits), rates
    get Newcombe's hybrid score interval over two Wilson intervals on the number of clusters. It ignores the
    pairing, which widens it when the runs agree. Other values are treated as by :func:`cluster_bootstrap`.

    Raises ValueError when the runs do not cover the same clusters, and as :func:`cluster_bootstrap` does.
    """
    a, b = _ClusterTable.of(values_a, clusters_a), _ClusterTable.of(values_b, clusters_b)
    _require_same_clusters(a, b)
    draws = _draws(len(a), rng, resamples)
    differences = np.concatenate([a.means(drawn) - b.means(drawn) for drawn in draws])
    if np.ptp(differences) <= ROUNDING * (abs(a.mean) + abs(b.mean)):
        low, high, method = _fallback_difference(a, b, level)
    else:
        (low, high), method = percentile_interval(differences, level=level), "paired cluster bootstrap"
    return Interval(estimate=a.mean - b.mean, low=low, high=high, level=level, clusters=len(a), method=method)


def sign_flip_test(differences: ArrayLike, *, rng: np.random.Generator | int, resamples: int = 9999) -> float:
    """Return the p-value, two-sided, of paired ``differences`` (N,) that would be as often positive as negative.

    If neither of two runs were better, each pair could as well be the other way round: p is the share of all choices of
    signs whose mean lies as far from 0. Up to `EXACT_PAIRS` pairs all choices are tried, so that few pairs can never
    give a small p; of more, ``resamples`` drawn ones (Phipson and Smyth 2010 add the observed one to them).

    Raises ValueError for empty or non-finite data.
    """
    pairs = np.asarray(differences, dtype=np.float64)
    if pairs.ndim != 1 or not len(pairs) or not np.isfinite(pairs).all():
        raise ValueError("differences must be a non-empty vector of finite numbers")
    reached = abs(pairs.sum()) - ROUNDING * np.abs(pairs).sum()
    if len(pairs) <= EXACT_PAIRS:
        bits = np.arange(2 ** len(pairs))[:, None] >> np.arange(len(pairs))
        return float((np.abs((1 - 2 * (bits & 1)) @ pairs) >= reached).mean())
    generator, hits = np.random.default_rng(rng), 0
    for count in _blocks(resamples, len(pairs)):
        signs = 1 - 2 * generator.integers(2, size=(count, len(pairs)))
        hits += int((np.abs(signs @ pairs) >= reached).sum())
    return (hits + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for asking as many questions at once, in the given order (Holm 1979).

    Rejecting all that are at most alpha rejects any true hypothesis with a probability of at most alpha.
    """
    order, highest = sorted(range(len(p_values)), key=lambda place: p_values[place]), 0.0
    corrected = [0.0] * len(p_values)
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def wilson(successes: float, n: float, *, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of a rate: 0/300 gives [0, 0.0126], 270/300 gives [0.861, 0.929].

    ``successes`` may be fractional, for a rate that is known on ``n`` effective observations. Source:
    Wilson (1927).
    """
    if not (math.isfinite(n) and n > 0 and 0 <= successes <= n):
        raise ValueError(f"need 0 <= successes <= n and n > 0, got {successes} of {n}")
    rate, z = successes / n, _normal_quantile(level)
    shrink = 1 / (1 + z * z / n)
    centre = shrink * (rate + z * z / (2 * n))
    half = shrink * z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == n else min(centre + half, 1.0)
    return Interval(estimate=rate, low=low, high=high, level=level, clusters=math.ceil(n), method="wilson")


def percentile_interval(samples: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval that holds ``level`` of ``samples`` (R,)."""
    _require_level(level)
    low, high = np.quantile(np.asarray(samples, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class _ClusterTable:
    """Per-cluster totals: all that a ratio estimator needs of the rows."""

    names: NDArray[np.generic]  # (C,) sorted
    totals: Floats  # (C,) sum of values
    rows: Floats  # (C,) number of rows
    is_rate: bool  # every value is 0 or 1

    @classmethod
    def of(cls, values: ArrayLike, clusters: ArrayLike) -> _ClusterTable:
        numbers, members = np.asarray(values, dtype=np.float64), np.asarray(clusters)
        if numbers.ndim != 1 or members.shape != numbers.shape:
            raise ValueError(
                f"values and clusters must be vectors of one length, got {numbers.shape} and {members.shape}"
            )
        if not len(numbers) or not np.isfinite(numbers).all():
            raise ValueError("values must be non-empty and finite; leave failed rows out or score them")
        names, position = np.unique(members, return_inverse=True)
        totals: Floats = np.zeros(len(names))
        rows: Floats = np.zeros(len(names))
        np.add.at(totals, position, numbers)
        np.add.at(rows, position, 1.0)
        return cls(names, totals, rows, bool(np.isin(numbers, (0.0, 1.0)).all()))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mean(self) -> float:
        return float(self.totals.sum() / self.rows.sum())

    @property
    def is_uninformative(self) -> bool:
        """Whether a bootstrap over these clusters could only return one point."""
        spread = self.totals * self.rows.sum() - self.rows * self.totals.sum()  # exact for counts
        scale = np.abs(self.totals).max() * self.rows.sum()
        return len(self) == 1 or bool(np.abs(spread).max() <= ROUNDING * scale)

    def means(self, drawn: NDArray[np.int64]) -> Floats:
        """Return the mean over all rows of each resample; ``drawn`` (R, C) holds cluster positions."""
        means: Floats = self.totals[drawn].sum(axis=1) / self.rows[drawn].sum(axis=1)
        return means


def _draws(clusters: int, rng: np.random.Generator | int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Yield blocks (R', C) of cluster positions, ``resamples`` rows in all, so that memory stays bounded."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    generator = np.random.default_rng(rng)
    for count in _blocks(resamples, clusters):
        yield generator.integers(clusters, size=(count, clusters))


def _blocks(resamples: int, entries: int) -> Iterator[int]:
    """Yield how many of the resamples to draw at once, so that memory stays bounded."""
    block = max(1, BLOCK_ENTRIES // entries)
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _fallback_bounds(table: _ClusterTable, level: float) -> tuple[float, float, str]:
    _require_level(level)
    if table.is_rate:
        bounds = wilson(table.mean * len(table), len(table), level=level)
        return bounds.low, bounds.high, "wilson on clusters"
    if len(table) == 1:
        return -math.inf, math.inf, "unbounded: one cluster"
    return table.mean, table.mean, "point: clusters do not differ"


def _fallback_difference(a: _ClusterTable, b: _ClusterTable, level: float) -> tuple[float, float, str]:
    """Combine two fallback intervals (Newcombe 1998, method 10); two points combine to a point."""
    (low_a, high_a, method), (low_b, high_b, method_b) = (
        _fallback_bounds(a, level),
        _fallback_bounds(b, level),
    )
    difference = a.mean - b.mean
    low = difference - math.hypot(a.mean - low_a, high_b - b.mean)
    high = difference + math.hypot(high_a - a.mean, b.mean - low_b)
    if a.is_rate and b.is_rate:
        return max(low, -1.0), min(high, 1.0), "newcombe on clusters"
    return low, high, method if method == method_b else f"{method}; {method_b}"


def _require_same_clusters(a: _ClusterTable, b: _ClusterTable) -> None:
    if not np.array_equal(a.names, b.names):
        lone = np.setxor1d(a.names, b.names)
        raise ValueError(
            f"both runs must cover the same clusters; one run lacks {lone[:3].tolist()} ({len(lone)} in all)"
        )


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")


def _normal_quantile(level: float) -> float:
    _require_level(level)
    return NormalDist().inv_cdf((1 + level) / 2)
