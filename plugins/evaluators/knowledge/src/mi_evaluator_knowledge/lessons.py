"""What students learn from, and what they are tested on: the two never share a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.contracts import Dataset, Modality, Samples
from micore.errors import DataError
from micore.kit.measuring import Rows
from micore.runtime import Runtime


@dataclass(frozen=True)
class Lessons:
    """Labelled samples in memory (`micore.contracts.Split`); labels: int64 (N,)."""

    samples: Samples
    labels: Tensor
    modality: Modality

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.labels)

    def take(self, indices: Sequence[int] | Tensor) -> Samples:
        """Return these samples."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if isinstance(self.samples, Tensor):
            return self.samples[rows.to(self.samples.device)]
        return self.modality.join([self.samples[row : row + 1] for row in rows.tolist()])

    def only(self, kept: Tensor) -> Lessons:
        """Return these rows; kept: bool (N,)."""
        rows = kept.nonzero().flatten()
        if len(rows) == len(self):
            return self
        return Lessons(self.take(rows) if len(rows) else self.samples[:0], self.labels[rows], self.modality)

    @property
    def marks(self) -> list[object]:
        """What tells each sample from others: equal samples have equal marks."""
        if isinstance(self.samples, Tensor):
            return [sample.contiguous().numpy().tobytes() for sample in self.samples.detach().cpu()]
        return [repr(sample) for sample in self.samples]


def recovered(rows: Rows, modality: Modality) -> tuple[Lessons, tuple[str, ...]]:
    """Return what a subject gives to learn from, and notes on samples that nobody can learn from."""
    lessons = Lessons(modality.join(rows.samples), rows.labels, modality)
    if not isinstance(lessons.samples, Tensor) or not lessons.samples.is_floating_point():
        return lessons, ()
    finite = lessons.samples.flatten(1).isfinite().all(dim=1).cpu()
    lost = int((~finite).sum())
    return lessons.only(finite), (f"{lost} samples that are not finite left out",) if lost else ()


def real(
    dataset: Dataset, name: str, attacked: Tensor, most: int, modality: Modality, runtime: Runtime
) -> Lessons | None:
    """Return real samples of the attacked classes, at most so many of each; None where the data set has none."""
    try:
        split = dataset.split(name)
    except DataError:
        return None
    if split.labels is None:
        return None
    labels = split.labels.cpu()
    rows = [_some(labels, int(label), most, name, runtime) for label in attacked]
    chosen = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
    return Lessons(split.take(chosen), labels[chosen], modality) if len(chosen) else None


def _some(labels: Tensor, label: int, most: int, name: str, runtime: Runtime) -> Tensor:
    members = labels.eq(label).nonzero().flatten()
    order = runtime.rng("knowledge", name, label).permutation(len(members))
    return members[order[:most]].sort().values


def leaving_a_test(lessons: Lessons, test: Lessons) -> tuple[Lessons, tuple[str, ...]]:
    """Take test samples out of the lessons of a class where more than half of its test samples are among them.

    The ceiling of a run learns from held-out samples, which it may not be tested on: something must be left.
    """
    tested = set(test.marks)
    shared = torch.tensor([mark in tested for mark in lessons.marks], dtype=torch.bool)
    kept = torch.ones(len(lessons), dtype=torch.bool)
    for label in lessons.labels.unique():
        rows = (shared & (lessons.labels == label)).nonzero().flatten()
        kept[rows[max(1, int((test.labels == label).sum()) // 2) :]] = False
    lost = int((~kept).sum())
    note = f"{lost} of {len(lessons)} samples not learned from: they are what is left to test on"
    return lessons.only(kept), (note,) if lost else ()


def unseen(test: Lessons, lessons: Lessons, classes: Tensor) -> Lessons:
    """Return the test samples of these classes that are not among the lessons."""
    seen = set(lessons.marks)
    fresh = torch.tensor([mark not in seen for mark in test.marks], dtype=torch.bool)
    return test.only(fresh & torch.isin(test.labels, classes))
