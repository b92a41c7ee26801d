"""From a value for each sample to a measurement with its interval: what evaluators share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.contracts import Interval, Measurement, Samples, Subject, Truth
from micore.errors import DataError
from micore.kit.statistics import cluster_bootstrap
from micore.records import true_label
from micore.runtime import derive_seed


@dataclass(frozen=True, slots=True)
class Rows:
    """The samples of all cases of a subject, one after another.

    samples: one group for each case; positions (N,): each row's place in ``case_ids``; labels (N,):
    the class that each row claims to be (goal ``class``) or that its case is of (``instance``), on the CPU;
    negative, another number for each case, where nobody knows the class.
    """

    subject: str
    samples: tuple[Samples, ...]
    case_ids: tuple[str, ...]
    positions: Tensor
    labels: Tensor

    @classmethod
    def of(cls, subject: Subject, truth: Mapping[str, Truth] | None = None, *, labelled: bool = True) -> Rows:
        """Lay out a subject; ``truth`` knows the classes of cases that the adversary did not know.

        Raises: DataError when there are no samples, or, unless ``labelled`` is False, a case has no class.
        """
        items = subject.reconstructions
        known = [true_label(item.case, truth or {}) for item in items]
        unlabelled = [item.case.id for item, label in zip(items, known, strict=True) if label is None]
        sizes = torch.tensor([len(item.samples) for item in items], dtype=torch.int64)
        if (labelled and unlabelled) or int(sizes.sum()) == 0:
            raise DataError(f"{subject.name} has no samples of a class (cases without a label: {unlabelled})")
        numbers = [-1 - position if label is None else label for position, label in enumerate(known)]
        labels = torch.tensor(numbers, dtype=torch.int64)
        return cls(
            subject=subject.name,
            samples=tuple(item.samples for item in items),
            case_ids=tuple(item.case.id for item in items),
            positions=torch.arange(len(items)).repeat_interleave(sizes),
            labels=labels.repeat_interleave(sizes),
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """One value for each row of a subject: (N,), NaN where a row has none."""

    name: str
    values: Tensor
    unit: str
    direction: str
    notes: tuple[str, ...] = ()


def measure(figure: Figure, rows: Rows, evaluator: str, *, resamples: int = 2000) -> Measurement:
    """Return the mean over classes of the mean over samples, with a bootstrap interval over classes.

    The samples of one class share target, prior and class, so the class is the unit of independence (the case,
    where nobody knows its class).
    ``evaluator`` is the judge's identity, ``name@fingerprint``; it also seeds the bootstrap. Without any
    finite row the value is NaN, on no samples: one broken subject does not keep the others from being judged.
    """
    values = figure.values.detach().double().cpu()
    valid = values.isfinite()
    by_class = _group_means(values[valid], rows.labels[valid])
    per_class = torch.stack(list(by_class.values())) if by_class else values[:0]
    lost = int((~valid).sum())
    notes = (*figure.notes, f"{lost} samples without a finite value left out") if lost else figure.notes
    per_case = _group_means(values[valid], rows.positions[valid])
    return Measurement(
        name=figure.name,
        subject=rows.subject,
        value=float(per_class.mean()),  # NaN when there is none
        interval=_interval(per_class, derive_seed(evaluator, figure.name, rows.subject) % 2**32, resamples),
        n=int(valid.sum()),
        clusters=len(per_class),
        unit=figure.unit,
        direction=figure.direction,
        evaluator=evaluator,
        per_case={rows.case_ids[position]: float(value) for position, value in per_case.items()},
        notes=notes,
    )


def _group_means(values: Tensor, groups: Tensor) -> dict[int, Tensor]:
    return {group: values[groups == group].mean() for group in groups.unique().tolist()}


def _interval(per_class: Tensor, seed: int, resamples: int) -> Interval | None:
    """Return a bootstrap interval over classes, or None where the data cannot bound the mean."""
    if len(per_class) == 0:
        return None
    found = cluster_bootstrap(per_class.numpy(), range(len(per_class)), rng=seed, resamples=resamples)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None
    return Interval(low=found.low, high=found.high, level=found.level)


def batches_of(samples: Samples, size: int) -> Sequence[Samples]:
    """Split samples into batches of at most ``size``."""
    return [samples[start : start + size] for start in range(0, len(samples), size)]
