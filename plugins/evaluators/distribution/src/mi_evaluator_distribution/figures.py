"""From two sets of features to figures with intervals: of both sets as wholes, and of each class by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from mi_evaluator_distribution.distances import Overlap, Within, between, frechet, manifolds, squared_mmd, within
from mi_evaluator_distribution.diversity import duplicates, nearest_hit, spread
from micore.contracts import Interval
from micore.kit.measuring import Rows
from micore.kit.statistics import cluster_bootstrap
from micore.runtime import Random, derive_seed

OVERLAPS = {"precision": "share", "density": "balls", "recall": "share", "coverage": "share"}
"""Their units."""
NO_CLASS = "no attacked class has private samples"
MOST_WORK = 1e12
"""Resamples times the cube of the smallest side: above it an interval of FID would take hours."""


@dataclass(frozen=True)
class Private:
    """Features (M, d) of private samples with their labels (M,), on the CPU: the same for every subject."""

    features: Tensor
    labels: Tensor

    @cached_property
    def classes(self) -> Tensor:
        """The labels that are there, sorted."""
        return self.labels.unique()

    @cached_property
    def kernels(self) -> Within:
        """Their kernels, by class."""
        return within(self.features, torch.searchsorted(self.classes, self.labels), len(self.classes))


@dataclass(frozen=True)
class Sets:
    """Features (N, d) of reconstructions with their labels (N,), on the CPU, and the private samples."""

    found: Tensor
    labels: Tensor
    private: Private

    @property
    def classes(self) -> list[int]:
        """The attacked classes that have private samples."""
        known = set(self.private.classes.tolist())
        return [label for label in self.labels.unique().tolist() if label in known]

    def readable(self) -> tuple[Sets, int]:
        """Return the sets without reconstructions that have no features, and how many these were."""
        finite = self.found.isfinite().all(dim=1)
        return replace(self, found=self.found[finite], labels=self.labels[finite]), int((~finite).sum())

    def chosen(self, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the features of some classes, each as often as it is named."""
        found, private = zip(*(self.of(label) for label in classes), strict=True)
        return torch.cat(found), torch.cat(private)

    def of(self, label: int) -> tuple[Tensor, Tensor]:
        """Return the features of one class."""
        return self.found[self.labels == label], self.private.features[self.private.labels == label]


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
    """Yield the Frechet and the kernel distance of the sets, over the classes that both have."""
    n_classes = len(sets.classes)
    if not n_classes:
        yield Found("fid", float("nan"), None, "squared distance", "down", [NO_CLASS])
        yield Found("kid", float("nan"), None, "squared discrepancy", "down", [NO_CLASS])
        return
    drawn = rng.integers(n_classes, (resamples if n_classes > 1 else 0, n_classes))
    times = torch.zeros(drawn.shape, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))
    yield _fid(sets, drawn)
    values = _kids(sets, torch.cat([torch.ones(1, n_classes, dtype=torch.float64), times]))
    kid = float(values[0])
    yield Found("kid", kid, _bounds(kid, values[1:]), "squared discrepancy", "down", _reasons(kid))


def _fid(sets: Sets, drawn: Tensor) -> Found:
    found, private = sets.chosen(sets.classes)
    slow = len(drawn) * min(len(found), len(private), found.shape[1]) ** 3 > MOST_WORK
    few = min(len(found), len(private)) <= found.shape[1]  # a covariance has no full rank: FID is far too high
    notes = [
        *([f"{len(found)} samples for {found.shape[1]} dimensions"] if few else []),
        *([f"no interval: {len(drawn)} resamples would take hours; give fewer"] if slow else []),
    ]
    fid = frechet(found, private)
    values = [frechet(*sets.chosen([sets.classes[place] for place in row])) for row in drawn.tolist() if not slow]
    bounds = _bounds(fid, torch.tensor(values, dtype=torch.float64))
    return Found("fid", fid, bounds, "squared distance", "down", [*notes, *_reasons(fid)])


def _reasons(value: float) -> list[str]:
    return [] if value == value else ["fewer than two samples"]


def _kids(sets: Sets, times: Tensor) -> Tensor:
    """Return the kernel distance where each class counts so often, (R,); times (R, C)."""
    classes = torch.tensor(sets.classes)
    known = torch.isin(sets.labels, classes)
    found, places = sets.found[known], torch.searchsorted(classes, sets.labels[known])
    kept = torch.isin(sets.private.labels, classes)
    private, others = sets.private.features[kept], torch.searchsorted(classes, sets.private.labels[kept])
    own = within(found, places, len(classes))
    other = sets.private.kernels.only(torch.searchsorted(sets.private.classes, classes))
    return squared_mmd(own, other, between(found, places, private, others, len(classes)), times)


def _bounds(value: float, draws: Tensor) -> Interval | None:
    """Return the interval of a figure from its values over classes that were drawn again, with all their samples."""
    known = draws[draws.isfinite()]
    if value != value or not len(known) or len(known) < len(draws) / 2:
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
