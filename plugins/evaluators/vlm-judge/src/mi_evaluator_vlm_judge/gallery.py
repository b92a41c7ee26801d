"""The private images: those that reconstructions are shown beside, and pairs that tell what the judge is worth."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from micore.contracts import Case, Reconstruction, Split, Subject
from micore.errors import DataError
from micore.runtime import Random, derive_seed

SAME_CLASS, OTHER_CLASS = "same-class", "other-class"
MOST_APART = 10
"""Images of a class that are kept for pairs: as many as the protocol has."""


class Gallery:
    """Private images by class. An image is either one that others are shown beside or one of a pair, never both."""

    def __init__(self, private: Split, references: int) -> None:
        if private.labels is None:
            raise DataError("vlm-judge: the private split has no labels")
        self._private, self._references = private, references
        labels = private.labels.cpu()
        self._members = {label: _shuffled(labels, label) for label in labels.unique().tolist()}
        self._lock = threading.Lock()  # a split may read a file, and workers ask at the same time

    def images(self, rows: Tensor) -> Tensor:
        """Return private images (R, C, H, W) in [0, 1] on the CPU."""
        with self._lock:
            images: Tensor = self._private.take(rows)
        return images.detach().cpu()

    def beside(self, label: int, number: int) -> Tensor:
        """Draw the references (R,) of a class for its sample of this number, whosever it is.

        Empty for a class without a private image.
        """
        rows = self._members.get(label, torch.zeros(0, dtype=torch.int64))[self._apart(label) :]
        order = Random(derive_seed("vlm-judge", "references", label, number)).permutation(len(rows))
        return rows[order[: self._references]]

    def same_class(self, cases: Sequence[Case], limit: int) -> Subject:
        """Return for each attacked class private images that are never its references."""
        return Subject(name=SAME_CLASS, reconstructions=list(self._pairs(cases, limit, 0)))

    def other_class(self, cases: Sequence[Case], limit: int) -> Subject:
        """Return for each attacked class private images of the next one."""
        return Subject(name=OTHER_CLASS, reconstructions=list(self._pairs(cases, limit, 1)))

    def _apart(self, label: int) -> int:
        """Count the images of a class that are kept for pairs: none where there is one image only."""
        return min(MOST_APART, len(self._members.get(label, ())) // 2)

    def _pairs(self, cases: Sequence[Case], limit: int, step: int) -> Iterator[Reconstruction]:
        known = sorted(self._members)
        for case in cases:
            if case.label not in self._members:
                continue
            shown = known[(known.index(case.label) + step) % len(known)]
            rows = self._members[shown][: min(limit, self._apart(shown))]
            if len(rows) and (step == 0 or shown != case.label):
                yield Reconstruction(case=case, samples=self.images(rows), scores=torch.zeros(len(rows)))


def _shuffled(labels: Tensor, label: int) -> Tensor:
    """Return the rows of a class in an order that depends on its label alone."""
    rows = labels.eq(label).nonzero().flatten()
    return rows[Random(derive_seed("vlm-judge", "members", label)).permutation(len(rows))]
