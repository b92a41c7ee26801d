"""Batches that hold several samples of each of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.runtime import Random


@dataclass(frozen=True)
class ClassGroups:
    """A sampler: each class's samples are cut into groups, which stay together; every sample once in an epoch.

    A group has about ``per_class`` samples, so a batch of 64 and groups of 4 are 16 classes; where there are fewer
    classes than that, the groups are larger and each batch holds all classes. The groups of a class are spread evenly
    over the epoch. The sizes of batches differ by one at most, so the end of a batch may cut a group in two.
    """

    per_class: int

    def __call__(self, labels: Tensor, batch_size: int, rng: Random) -> Sequence[Tensor]:
        """Return the rows of each batch, as `micore.kit.training.Sampler` says."""
        n_batches = -(-len(labels) // batch_size)
        _, classes, counts = labels.cpu().unique(return_inverse=True, return_counts=True)
        n_groups = torch.minimum(-(-counts // self.per_class), counts // 2).clamp(min=1, max=n_batches)
        order = rng.permutation(len(labels))
        order = order[classes[order].argsort(stable=True)]  # class by class, shuffled in each
        classes = classes[order]
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[classes]
        group = rank * n_groups[classes] // counts[classes]
        n_all = int(n_groups.sum())
        jitter = rng.permutation(n_all).double() / n_all
        first = n_groups.cumsum(0) - n_groups
        place = (group + jitter[first[classes] + group]) / n_groups[classes]
        return order[place.argsort(stable=True)].tensor_split(n_batches)


def repeated_share(labels: Tensor) -> float:
    """Return the share of classes that have at least two samples."""
    counts = labels.unique(return_counts=True)[1]
    return float((counts > 1).double().mean())
