"""What is normal: statistics of windows that are drawn from the reference samples, and the thresholds from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mi_defense_query_monitor.signals import SIGNALS, ascent, concentration, distances, shift
from micore.errors import ModelError
from micore.runtime import Random

SMALLEST_WINDOW = 32
NEAR_PERCENTILE = 0.01
CHUNK_ENTRIES = 4_000_000
NO_DISTANCE = -1.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The reference, and what windows of each size look like when nothing is wrong.

    shares: of the classes, (K,); tops, entropies: of the reference answers, sorted, (N,); near: the distance up to
    which two samples are alike, (), -1 where none is measured; sizes: of windows, falling, (S,); means, spreads:
    of the signals, (S, signals); thresholds: of the largest standardised signal, (S,). All on the CPU.
    """

    shares: Tensor
    tops: Tensor
    entropies: Tensor
    near: Tensor
    sizes: Tensor
    means: Tensor
    spreads: Tensor
    thresholds: Tensor

    def __post_init__(self) -> None:
        n_sizes = len(self.sizes) if self.sizes.ndim == 1 else 0
        if not n_sizes or self.means.shape != (n_sizes, len(SIGNALS)) or self.spreads.shape != self.means.shape:
            raise ModelError("query-monitor: the state in the bundle is not its own", hint="train or defend again")

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Calibration:
        """Take back what `state` gave.

        Raises: ModelError when something is missing or has another shape.
        """
        names = [field.name for field in fields(cls)]
        if set(state) != set(names):
            raise ModelError("query-monitor: the state in the bundle is not its own", hint="train or defend again")
        return cls(**{name: state[name].cpu() for name in names})

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def window(self) -> int:
        """The size of a whole window."""
        return int(self.sizes[0])

    @property
    def measures_distance(self) -> bool:
        """Whether samples can be told to be alike."""
        return float(self.near) != NO_DISTANCE

    def signals(self, rows: Tensor) -> Tensor:
        """Return the signals of a window's rows (n, 4): label, top score, entropy, whether an earlier one is near."""
        window = rows.double().t()[:, None, :]
        return _signals(window[0].long(), window[1].float(), window[2].float(), window[3].mean(dim=1), self)[0]

    def exceeding(self, signals: Tensor, index: int) -> list[str]:
        """Return the names of signals (4,) that are beyond the threshold of the window size at an index."""
        standardised = (signals - self.means[index]) / self.spreads[index]
        beyond = (standardised > self.thresholds[index]).tolist()
        return [name for name, found in zip(SIGNALS, beyond, strict=True) if found]


def _signals(
    labels: Tensor, tops: Tensor, entropies: Tensor, near: Tensor, reference: Calibration | Reference
) -> Tensor:
    """Return the signals of windows (B, n), of which a share ``near`` (B,) has a near predecessor, (B, signals)."""
    moved = torch.maximum(shift(tops, reference.tops), shift(entropies, reference.entropies))
    return torch.stack([concentration(labels, reference.shares), near, ascent(tops), moved], dim=1)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference samples' answers, and which of the samples are near each other.

    labels, top scores and entropies as rows (N, 3); pairs: (2, P) rows that are at most ``near`` apart.
    """

    rows: Tensor
    shares: Tensor
    near: float
    pairs: Tensor

    @property
    def tops(self) -> Tensor:
        """The sorted top scores, (N,)."""
        return self.rows[:, 1].sort().values

    @property
    def entropies(self) -> Tensor:
        """The sorted entropies, (N,)."""
        return self.rows[:, 2].sort().values


def reference_of(rows: Tensor, vectors: Tensor | None, n_classes: int) -> Reference:
    """Return the reference of described answers (N, 3) and the samples' vectors (N, d).

    Two samples are near from the first percentile of the distances of the reference samples to their nearest one.
    """
    counts = torch.bincount(rows[:, 0].long(), minlength=n_classes).double()
    if vectors is None:
        near, pairs = NO_DISTANCE, torch.zeros(2, 0, dtype=torch.int64)
    else:
        apart = distances(vectors, vectors)
        apart.fill_diagonal_(math.inf)
        near = float(apart.amin(dim=1).quantile(NEAR_PERCENTILE, interpolation="lower"))
        pairs = (apart <= near).nonzero().t()
    return Reference(rows=rows, shares=counts / len(rows), near=near, pairs=pairs)


def window_sizes(window: int, n_reference: int) -> list[int]:
    """Return the window and its halves down to 32; a window has at most as many queries as there are references.

    In a larger one more samples would be near each other than the reference can tell.
    """
    sizes = [min(window, n_reference)]
    while sizes[-1] // 2 >= SMALLEST_WINDOW:
        sizes.append(sizes[-1] // 2)
    return sizes


def calibrate(
    reference: Reference, *, window: int, false_positives: float, replicates: int, rng: Random
) -> Calibration:
    """Calibrate the largest standardised signal, so that a share ``false_positives`` of benign windows exceeds it.

    Benign windows are drawn from a population that is itself drawn from the reference, with replacement both: the
    window's own chance and that of a reference of limited size both count.
    """
    sizes = window_sizes(window, len(reference.rows))
    means, spreads, thresholds = [], [], []
    for size in sizes:
        found = benign_signals(reference, size, replicates, rng)
        mean, spread = found.mean(dim=0), found.std(dim=0).clamp(min=1 / size)
        largest = ((found - mean) / spread).amax(dim=1).sort().values
        rank = math.ceil((replicates + 1) * (1 - false_positives))
        means.append(mean)
        spreads.append(spread)
        thresholds.append(largest[min(rank, replicates) - 1])
    return Calibration(
        shares=reference.shares, tops=reference.tops, entropies=reference.entropies,
        near=torch.tensor(reference.near, dtype=torch.float64), sizes=torch.tensor(sizes),
        means=torch.stack(means), spreads=torch.stack(spreads), thresholds=torch.stack(thresholds),
    )  # fmt: skip


def benign_signals(reference: Reference, size: int, replicates: int, rng: Random) -> Tensor:
    """Return the signals of windows of one size that are drawn from the reference, (replicates, signals)."""
    n = len(reference.rows)
    chunk = max(1, CHUNK_ENTRIES // max(n, size, reference.pairs.shape[1]))
    found = []
    for start in range(0, replicates, chunk):
        count = min(chunk, replicates - start)
        population = rng.integers(n, (count, n)).cpu()
        drawn = population.gather(1, rng.integers(n, (count, size)).cpu())
        rows = reference.rows[drawn]
        near = share_with_near_predecessor(drawn, reference.pairs, n)
        found.append(_signals(rows[..., 0].long(), rows[..., 1], rows[..., 2], near, reference))
    return torch.cat(found)


def share_with_near_predecessor(drawn: Tensor, pairs: Tensor, n: int) -> Tensor:
    """Return the share of each row of reference indices (B, size) that come after one they are paired with, (B,).

    The same index twice is no pair: the stream that is imitated does not repeat itself.
    """
    count, size = drawn.shape
    places = torch.arange(size).expand(count, -1)
    never = torch.full((count, n), size)
    first = never.scatter_reduce(1, drawn, places, "amin")
    partner = never.scatter_reduce(1, pairs[0].expand(count, -1), first[:, pairs[1]], "amin")
    return (partner.gather(1, drawn) < places).double().mean(dim=1)
