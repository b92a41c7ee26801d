"""Recovered sensitive values against the true ones.

- ``accuracy``, ``balanced-accuracy`` (the mean over values of the share of them that came back), ``f1`` (the mean over
  values) and ``mcc`` (Gorodkin, 2004), of private rows. A value that nobody has counts in no mean.
- ``gain``: the accuracy above the best that the same knowledge gives without a target (the floors ``most-frequent``,
  ``imputation-linear``, ``imputation-boosted``, or guessing); ``gain-balanced``: likewise of the balanced accuracy,
  above the best floor by that. The headlines: a sensitive column can often be told without any target.
- ``holdout-accuracy``, ``holdout-balanced-accuracy``, ``holdout-gain``: the same of rows that the target never saw:
  what it has learned of people in general.
- ``disparity``: the accuracy of private rows less that of held-out ones: what it has memorised of its own. It has no
  direction: without a leak it is 0, but for chance.

Of each case the first sample counts. Intervals draw cases again (2.5 to 97.5 %), private and held-out ones apart, and
the same ones for the attack and for the floors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
from numpy.typing import NDArray
from pydantic import Field

from mi_evaluator_attribute.figures import accuracy, balanced_accuracy, f1, mcc, tables
from mi_tabular.baselines import FLOORS
from mi_tabular.cases import HOLDOUT, PRIVATE, is_private
from micore.contracts import Config, Interval, Measurement, Reference, Subject
from micore.errors import DataError
from micore.runtime import Runtime, derive_seed

IDENTITY = "attribute@rows"
Values = NDArray[numpy.float64]
ALONE: Mapping[str, Callable[[Any], Values]] = {
    "accuracy": accuracy, "balanced-accuracy": balanced_accuracy, "f1": f1, "mcc": mcc,
}  # fmt: skip
GAINS = {"gain": accuracy, "gain-balanced": balanced_accuracy}
UNITS = {"mcc": "correlation", "gain": "accuracy", "gain-balanced": "accuracy", "holdout-gain": "accuracy",
         "disparity": "accuracy"}  # fmt: skip


class AttributeConfig(Config):
    """Settings of the evaluator."""

    resamples: int = Field(1000, ge=10, description="draws of cases behind each interval")


@dataclass(frozen=True)
class Judged:
    """The sensitive values of one subject: found and true, int64 (n,), by case, of one part of the cases."""

    case_ids: tuple[str, ...]
    found: NDArray[numpy.int64]
    true: NDArray[numpy.int64]
    n_values: int

    def drawn(self, times: NDArray[numpy.int64]) -> Values:
        """Return confusion matrices (draws, values, values + 1) of cases that count so often, times (draws, n)."""
        return tables(self.true, self.found, times, self.n_values)


class AttributeEvaluator:
    """Judge recovered rows by their sensitive value (see the module's documentation)."""

    Config: ClassVar[type[Config]] = AttributeConfig

    def __init__(self, config: AttributeConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike.

        Raises: DataError for a case without a truth.
        """
        parts = {
            part: {subject.name: _judged(subject, reference, part) for subject in subjects}
            for part in (PRIVATE, HOLDOUT)
        }
        times = {part: self._times(judged) for part, judged in parts.items()}
        return [item for subject in subjects for item in self._of(subject.name, parts, times)]

    def _times(self, judged: Mapping[str, Judged]) -> NDArray[numpy.int64]:
        """Return how often each case counts: once, and then as often as it was drawn; (1 + draws, n)."""
        ids = next(iter(judged.values())).case_ids
        n = len(ids)
        rng = numpy.random.default_rng(derive_seed("attribute", *ids) % 2**32)
        drawn = rng.multinomial(n, numpy.full(n, 1 / n), self.config.resamples) if n else numpy.zeros((0, 0), int)
        return numpy.concatenate([numpy.ones((1, n), int), drawn.reshape(-1, n)])

    def _of(
        self, name: str, parts: Mapping[str, Mapping[str, Judged]], times: Mapping[str, NDArray[numpy.int64]]
    ) -> list[Measurement]:
        """Return the figures of one subject: of each the value, and those of all draws after it."""
        found: dict[str, tuple[Values, Judged]] = {}
        for part, prefix in ((PRIVATE, ""), (HOLDOUT, "holdout-")):
            own = parts[part][name]
            if not own.case_ids:
                continue
            drawn = own.drawn(times[part])
            kinds = ALONE if part == PRIVATE else {key: ALONE[key] for key in ("accuracy", "balanced-accuracy")}
            found |= {f"{prefix}{key}": (figure(drawn), own) for key, figure in kinds.items()}
            floors = [parts[part][floor].drawn(times[part]) for floor in FLOORS if floor in parts[part]]
            for key, figure in GAINS.items():
                if part == PRIVATE or key == "gain":
                    found[f"{prefix}{key}"] = (_above(figure, drawn, floors, own.n_values), own)
        if "accuracy" in found and "holdout-accuracy" in found:
            values = found["accuracy"][0] - found["holdout-accuracy"][0]
            found["disparity"] = (values, parts[PRIVATE][name])
        return [_measurement(name, key, values, own) for key, (values, own) in found.items()]


def _above(figure: Callable[[Any], Values], drawn: Values, floors: Sequence[Values], n_values: int) -> Values:
    """Return a figure above the floor that is best on all cases, or above guessing, in each draw."""
    known = [figure(floor) for floor in floors]
    best = max(known, key=lambda values: float(values[0]), default=numpy.zeros(1))
    guessing = 1 / n_values
    return figure(drawn) - (best if best[0] > guessing else guessing)


def _judged(subject: Subject, reference: Reference, part: str) -> Judged:
    """Return the first sample of each case of a part beside its truth, in the order of the cases' names."""
    rows = []
    n_values = 0
    for item in subject.reconstructions:
        if item.case.id not in reference.truth:
            raise DataError(f"attribute: nobody knows the truth of {item.case.id}")
        if is_private(item.case.id) == (part == PRIVATE):
            truth = reference.truth[item.case.id].sample
            n_values = len(truth.schema.values)
            rows.append((item.case.id, int(item.samples[:1].values()[0]), int(truth.values()[0])))
    rows.sort()
    found, true = (numpy.array([row[place] for row in rows], dtype=numpy.int64) for place in (1, 2))
    return Judged(tuple(row[0] for row in rows), found, true, n_values)


def _measurement(subject: str, name: str, values: Values, judged: Judged) -> Measurement:
    n = len(judged.case_ids)
    hits = (judged.found == judged.true).astype(float)
    low, high = numpy.quantile(values[1:], [0.025, 0.975])
    value = float(values[0])
    interval = Interval(low=min(float(low), value), high=max(float(high), value))
    is_plain = name in ("accuracy", "holdout-accuracy")
    return Measurement(
        name=name, subject=subject, value=value, interval=interval, n=n,
        clusters=n, unit=UNITS.get(name, "share"), direction="none" if name == "disparity" else "up",
        evaluator=IDENTITY, per_case=dict(zip(judged.case_ids, hits.tolist(), strict=True)) if is_plain else {},
    )  # fmt: skip
