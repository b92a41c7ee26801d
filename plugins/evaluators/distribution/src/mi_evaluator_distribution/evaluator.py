"""How like the private data all reconstructions of a run are together, in the features of an independent classifier.

Other judges look at one reconstruction at a time and do not see that all are alike, or that they show a corner of a
class only. Compared are the reconstructions of all attacked classes with the private samples of these classes.

- ``fid``, ``kid``: Frechet and kernel distance. The features are those of the evaluator model, trained here, and not of
  the Inception network that papers use: compare them with the controls of the same run and with nothing else. FID is
  biased: it falls with the number of samples. KID is not, and is the one to compare.
- ``precision``, ``density``: how many reconstructions lie among private samples; ``recall``, ``coverage``: how many
  private samples have reconstructions around them. Of each class by itself.

Where too few samples are there for a figure it is no number, and its note says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_distribution.distances import Overlap, frechet, kernels, manifolds, squared_mmd
from micore.contracts import Config, EvaluatorModel, Interval, Measurement, Reference, Samples, Subject
from micore.errors import DataError
from micore.kit.features import features_and_logits
from micore.kit.measuring import Rows, batches_of
from micore.kit.statistics import cluster_bootstrap
from micore.kit.training import placed
from micore.runtime import Random, Runtime, derive_seed

OVERLAPS = ("precision", "density", "recall", "coverage")


class DistributionConfig(Config):
    """Settings of the evaluator."""

    neighbours: int = Field(
        3, ge=1, description="k of precision, recall, density and coverage (PPA: 3); fewer where classes are small"
    )
    resamples: int = Field(500, ge=1, description="bootstrap resamples over classes behind each interval")
    batch_size: int = Field(256, ge=1, description="samples in one forward pass")


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


@dataclass(frozen=True)
class Shared:
    """One figure of what classes have in common with the private data, and its values by case."""

    name: str
    value: float
    interval: Interval | None
    notes: Sequence[str]
    per_case: Mapping[str, float]


class DistributionEvaluator:
    """Compare sets of reconstructions with private data (see the module's documentation)."""

    Config: ClassVar[type[Config]] = DistributionConfig

    def __init__(self, config: DistributionConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike.

        Raises: ModelError without an evaluator model; DataError without labelled private data.
        """
        judge, private = reference.judge(), reference.dataset.split("private")
        if private.labels is None:
            raise DataError("distribution: the private split has no labels")
        attacked = Rows.of(subjects[0]).labels.unique()
        rows = torch.isin(private.labels.cpu(), attacked).nonzero().flatten()
        features = torch.cat([self._features(judge, private.take(part), runtime) for part in rows.split(1024)])
        found = []
        for subject in subjects:
            laid = Rows.of(subject, reference.truth)
            own = self._features(judge, reference.modality.join(laid.samples), runtime)
            found += self._measured(laid, Sets(own, laid.labels, features, private.labels.cpu()[rows]), judge)
        return found

    @torch.no_grad()
    def _features(self, judge: EvaluatorModel, samples: Samples, runtime: Runtime) -> Tensor:
        parts = [
            features_and_logits(judge.module, judge.adapter(placed(batch, runtime)).to(runtime.device))[0].float().cpu()
            for batch in batches_of(samples, self.config.batch_size)
        ]
        return torch.cat(parts)

    def _measured(self, rows: Rows, sets: Sets, judge: EvaluatorModel) -> list[Measurement]:
        identity = f"distribution@{judge.identity}"
        extractor = f"features of {judge.bundle.card.model.name}, trained here; not comparable with Inception's"
        finite = sets.found.isfinite().all(dim=1)
        lost = int((~finite).sum())
        sets = Sets(sets.found[finite], sets.labels[finite], sets.private, sets.private_labels)
        notes = (extractor, *judge.notes, *([f"{lost} samples that the judge cannot read left out"] if lost else []))
        rng = Random(derive_seed(identity, rows.subject))

        def given(name: str, value: float, interval: Interval | None, unit: str, direction: str, *more: str,
                  per_case: Mapping[str, float] | None = None) -> Measurement:  # fmt: skip
            return Measurement(
                name=name, subject=rows.subject, value=value, interval=interval, n=len(sets.found),
                clusters=len(sets.classes), unit=unit, direction=direction, evaluator=identity,
                per_case=per_case or {}, notes=(*notes, *more),
            )  # fmt: skip

        few = [f"{len(sets.found)} samples for {sets.found.shape[1]} dimensions"] if _too_few(sets) else []
        fid, kid = frechet(sets.found, sets.private), _kid(sets, None)
        reasons = [] if fid == fid else ["fewer than two samples"]
        measured = [
            given("fid", fid, self._drawn(sets, fid, _fid, rng), "squared distance", "down", *few, *reasons),
            given("kid", kid, self._drawn(sets, kid, _kid, rng), "squared discrepancy", "down", *reasons),
        ]
        return measured + [
            given(
                shared.name,
                shared.value,
                shared.interval,
                "share" if shared.name != "density" else "balls",
                "up",
                *shared.notes,
                per_case=shared.per_case,
            )
            for shared in self._overlaps(sets, rows)
        ]

    def _drawn(
        self, sets: Sets, value: float, figure: Callable[[Sets, Tensor | None], float], rng: Random
    ) -> Interval | None:
        """Draw classes again: a class comes with all its reconstructions and private samples."""
        classes = torch.tensor(sets.classes)
        if value != value or len(classes) < 2:
            return None
        draws = [
            figure(sets, classes[rng.integers(len(classes), (len(classes),))]) for _ in range(self.config.resamples)
        ]
        known = torch.tensor([draw for draw in draws if draw == draw], dtype=torch.float64)
        if len(known) < len(draws) / 2:
            return None
        low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Interval(low=min(low, value), high=max(high, value))

    def _overlaps(self, sets: Sets, rows: Rows) -> Iterator[Shared]:
        """Yield name, mean over classes, interval, notes and values by case of what classes have in common."""
        k = max(1, min(self.config.neighbours, _smallest(sets) - 2))
        by_class = {label: _overlap(sets, label, k) for label in sets.classes}
        able = {label: overlap for label, overlap in by_class.items() if overlap is not None}
        lost = len(by_class) - len(able)
        notes = [f"k = {k}", *([f"{lost} classes with fewer than {k + 2} samples left out"] if lost else [])]
        cases = dict(zip(rows.labels.tolist(), rows.positions.tolist(), strict=True))
        for name in OVERLAPS:
            values = {label: float(getattr(overlap, name).mean()) for label, overlap in able.items()}
            per_case = {rows.case_ids[cases[label]]: value for label, value in values.items()}
            yield Shared(name, _mean(values), self._of_classes(values, name, rows.subject), notes, per_case)

    def _of_classes(self, values: Mapping[int, float], name: str, subject: str) -> Interval | None:
        if not values:
            return None
        found = cluster_bootstrap(
            torch.tensor(list(values.values()), dtype=torch.float64).numpy(), range(len(values)),
            rng=derive_seed(name, subject) % 2**32, resamples=self.config.resamples,
        )  # fmt: skip
        return Interval(low=found.low, high=found.high, level=found.level) if found.low == found.low else None


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values) if values else float("nan")


def _too_few(sets: Sets) -> bool:
    """Tell whether a covariance has no full rank: then FID is far too high."""
    return min(len(sets.found), len(sets.private)) <= sets.found.shape[1]


def _smallest(sets: Sets) -> int:
    """Return the samples of the class that has the fewest, on either side."""
    counts = [int((labels == label).sum()) for labels in (sets.labels, sets.private_labels) for label in sets.classes]
    return min(counts, default=0)


def _overlap(sets: Sets, label: int, k: int) -> Overlap | None:
    return manifolds(sets.found[sets.labels == label], sets.private[sets.private_labels == label], k)


def _fid(sets: Sets, classes: Tensor | None) -> float:
    return frechet(*_chosen(sets, classes))


def _kid(sets: Sets, classes: Tensor | None) -> float:
    found, private = _chosen(sets, classes)
    return squared_mmd(kernels(found, found), kernels(private, private), kernels(found, private))


def _chosen(sets: Sets, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the features of some classes, each as often as it is named."""
    if classes is None:
        return sets.found, sets.private
    return tuple(  # type: ignore[return-value]
        torch.cat([features[labels == label] for label in classes.tolist()])
        for features, labels in ((sets.found, sets.labels), (sets.private, sets.private_labels))
    )
