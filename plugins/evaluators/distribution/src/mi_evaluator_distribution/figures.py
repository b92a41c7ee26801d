"""From two sets of features to figures with intervals: of both sets as wholes, and of each class by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mi_evaluator_distribution.distances import Overlap, frechet, kernels, manifolds, squared_mmd
from mi_evaluator_distribution.diversity import duplicates, nearest_hit, spread
from micore.contracts import Interval
from micore.kit.measuring import Rows
from micore.kit.statistics import cluster_bootstrap
from micore.runtime import Random, derive_seed

OVERLAPS = {"precision": "share", "density": "balls", "recall": "share", "coverage": "share"}
"""Their units."""
MOST_WORK = 1e12
"""Resamples times the cube of the smallest side: above it an interval of FID would take hours."""


@dataclass(frozen=True)
class Sets:
    """Features (N, d) of reconstructions and (M, d) of private samples with their labels, on the CPU."""

    found: Tensor
    labels: Tensor
    private: Tensor
    private_labels: Tensor

    @property
    def classes(self) -> list[int]:
        """The attacked classes that have private samples."""
        known = set(self.private_labels.tolist())
        return [label for label in self.labels.unique().tolist() if label in known]

    def readable(self) -> tuple[Sets, int]:
        """Return the sets without reconstructions that have no features, and how many these were."""
        finite = self.found.isfinite().all(dim=1)
        return Sets(self.found[finite], self.labels[finite], self.private, self.private_labels), int((~finite).sum())

    def chosen(self, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features of some classes, each as often as it is named; None: all."""
        if classes is None:
            return self.found, self.private
        names = classes.tolist()
        return torch.cat([self.of(label)[0] for label in names]), torch.cat([self.of(label)[1] for label in names])

    def of(self, label: int) -> tuple[Tensor, Tensor]:
        """Return the features of one class."""
        return self.found[self.labels == label], self.private[self.private_labels == label]


@dataclass(frozen=True)
class Found:
    """One figure of a subject."""

    name: str
    value: float
    interval: Interval | None
    unit: str
    direction: str
    notes: Sequence[str] = ()
    per_case: Mapping[str, float] = field(default_factory=dict)


# of both sets ---------------------------------------------------------------------------------------------


def of_sets(sets: Sets, resamples: int, rng: Random) -> Iterator[Found]:
    """Yield the Frechet and the kernel distance of the sets."""
    side = min(len(sets.found), len(sets.private), sets.found.shape[1])
    slow = resamples * side**3 > MOST_WORK
    few = [f"{len(sets.found)} samples for {sets.found.shape[1]} dimensions"] if _too_few(sets) else []
    fid, kid = frechet(sets.found, sets.private), _kid(sets, None)
    reasons = [] if fid == fid else ["fewer than two samples"]
    dear = [f"no interval: {resamples} resamples would take hours; give fewer"] if slow else []
    drawn = None if slow else _drawn(sets, fid, _fid, resamples, rng)
    yield Found("fid", fid, drawn, "squared distance", "down", [*few, *reasons, *dear])
    yield Found("kid", kid, _drawn(sets, kid, _kid, resamples, rng), "squared discrepancy", "down", reasons)


def _too_few(sets: Sets) -> bool:
    """Tell whether a covariance has no full rank: then FID is far too high."""
    return min(len(sets.found), len(sets.private)) <= sets.found.shape[1]


def _fid(sets: Sets, classes: Tensor | None) -> float:
    return frechet(*sets.chosen(classes))


def _kid(sets: Sets, classes: Tensor | None) -> float:
    found, private = sets.chosen(classes)
    return squared_mmd(kernels(found, found), kernels(private, private), kernels(found, private))


def _drawn(
    sets: Sets, value: float, figure: Callable[[Sets, Tensor | None], float], resamples: int, rng: Random
) -> Interval | None:
    """Draw classes again: a class comes with all its reconstructions and private samples."""
    classes = torch.tensor(sets.classes)
    if value != value or len(classes) < 2:
        return None
    draws = [figure(sets, classes[rng.integers(len(classes), (len(classes),))]) for _ in range(resamples)]
    known = torch.tensor([draw for draw in draws if draw == draw], dtype=torch.float64)
    if len(known) < len(draws) / 2:
        return None
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low=min(low, value), high=max(high, value))


# of each class --------------------------------------------------------------------------------------------


def of_classes(sets: Sets, rows: Rows, neighbours: int, resamples: int) -> Iterator[Found]:
    """Yield what reconstructions of a class have in common with its private samples, and with each other."""
    k = max(1, min(neighbours, _smallest(sets) - 2))
    able = {label: overlap for label in sets.classes if (overlap := manifolds(*sets.of(label), k)) is not None}
    lost = len(sets.classes) - len(able)
    notes = [f"k = {k}", *([f"{lost} classes with fewer than {k + 2} samples left out"] if lost else [])]
    for name, unit in OVERLAPS.items():
        values = {label: _share(overlap, name) for label, overlap in able.items()}
        yield _mean_of(name, values, unit, "up", notes, rows, resamples)
    yield from _diversity(sets, rows, resamples)


def _diversity(sets: Sets, rows: Rows, resamples: int) -> Iterator[Found]:
    groups = {label: sets.of(label) for label in sets.classes}
    several = {label: found for label, (found, _) in groups.items() if len(found) > 1}
    lost = len(groups) - len(several)
    notes = [f"{lost} classes with fewer than 2 reconstructions left out"] if lost else []
    for name, measured, unit in (("diversity", spread, "1 - cosine"), ("duplicates", duplicates, "share")):
        values = {label: measured(found) for label, found in several.items()}
        yield _mean_of(name, values, unit, "none", notes, rows, resamples)
    hit = {label: float(nearest_hit(*both)) for label, both in groups.items() if len(both[0])}
    yield _mean_of("nearest-hit", hit, "private samples", "up", [], rows, resamples)


def _share(overlap: Overlap, name: str) -> float:
    values: Tensor = getattr(overlap, name)
    return float(values.mean())


def _smallest(sets: Sets) -> int:
    """Return the samples of the class that has the fewest, on either side."""
    return min((len(part) for label in sets.classes for part in sets.of(label)), default=0)


def _mean_of(
    name: str, values: Mapping[int, float], unit: str, direction: str, notes: Sequence[str], rows: Rows, resamples: int
) -> Found:
    """Return the mean over classes, with its interval and the value of each class by its case."""
    cases = dict(zip(rows.labels.tolist(), rows.positions.tolist(), strict=True))
    per_case = {rows.case_ids[cases[label]]: value for label, value in values.items()}
    mean = sum(values.values()) / len(values) if values else float("nan")
    return Found(name, mean, _interval(values, name, rows.subject, resamples), unit, direction, notes, per_case)


def _interval(values: Mapping[int, float], name: str, subject: str, resamples: int) -> Interval | None:
    if not values:
        return None
    found = cluster_bootstrap(
        torch.tensor(list(values.values()), dtype=torch.float64).numpy(), range(len(values)),
        rng=derive_seed(name, subject) % 2**32, resamples=resamples,
    )  # fmt: skip
    return Interval(low=found.low, high=found.high, level=found.level) if found.low == found.low else None
