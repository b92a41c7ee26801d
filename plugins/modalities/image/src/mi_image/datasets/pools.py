"""Labelled images before they are divided into splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mi_image.splits import ImageSplit
from micore.runtime import Random, derive_seed


@dataclass(frozen=True, eq=False)
class Pool:
    """Images uint8 (N, C, H, W), their labels int64 (N,), and the name of each label."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, indices: Tensor) -> Pool:
        """Return some of the images, with all class names."""
        return Pool(self.images[indices], self.labels[indices], self.classes)

    def keep(self, labels: Sequence[int]) -> Pool:
        """Return the images of these classes, which become labels 0, 1, 2... in the order given."""
        renumber = torch.full((len(self.classes),), -1, dtype=torch.int64)
        renumber[torch.as_tensor(labels, dtype=torch.int64)] = torch.arange(len(labels))
        chosen = renumber[self.labels]
        mask = chosen >= 0
        return Pool(self.images[mask], chosen[mask], tuple(self.classes[label] for label in labels))

    def divide(self, shares: Mapping[int, Sequence[float]], *key: object) -> tuple[Pool, ...]:
        """Cut each class at random into disjoint parts; ``shares[label]`` are their sizes, of sum at most 1.

        Classes without shares are left out. The cut of a class depends on ``key`` and its name only.
        """
        n_parts = max((len(sizes) for sizes in shares.values()), default=0)
        parts: list[list[Tensor]] = [[] for _ in range(n_parts)]
        for label, sizes in shares.items():
            members = torch.nonzero(self.labels == label).squeeze(1)
            order = Random(derive_seed(*key, self.classes[label])).permutation(len(members))
            for part, rows in zip(parts, _cut(members[order], sizes), strict=False):
                part.append(rows)
        return tuple(self.rows(torch.cat(part).sort().values) for part in parts)

    def first(self, limit: int | None) -> Pool:
        """Return at most ``limit`` images of each class: the first ones."""
        if limit is None:
            return self
        members = [torch.nonzero(self.labels == label).squeeze(1)[:limit] for label in range(len(self.classes))]
        return self.rows(torch.cat(members).sort().values)

    def labelled(self) -> ImageSplit:
        """Return the images with their labels."""
        return ImageSplit(self.images, self.labels)

    def unlabelled(self) -> ImageSplit:
        """Return the images as the adversary gets them."""
        return ImageSplit(self.images)


def _cut(rows: Tensor, sizes: Sequence[float]) -> list[Tensor]:
    ends = [round(len(rows) * sum(sizes[:end])) for end in range(len(sizes) + 1)]
    return [rows[start:end] for start, end in pairwise(ends)]
