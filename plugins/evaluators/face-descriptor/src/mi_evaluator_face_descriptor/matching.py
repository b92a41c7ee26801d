"""What descriptors say about each other: whose face is it, how near, would it pass?

All distances are L2. A *gallery* is real pictures of the private classes. Descriptors that are not
finite (a broken reconstruction) are never hits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from micore.errors import DataError

SAME_PERSON = 0.6
"""dlib's threshold for a single pair: two faces nearer than this are one person."""

STRICT = 0.5
"""A threshold for the nearest of many pictures: there 0.6 lets 16 % of strangers pass, 0.5 lets 0.7 % (README)."""


@dataclass(frozen=True, slots=True)
class Identification:
    """Whose class centroid is nearest (a line-up of all classes of the gallery)."""

    ranks: Tensor
    """(N,) int64: 1 if the own centroid is the nearest; ties count against the reconstruction."""
    n_classes: int

    @property
    def top1(self) -> float:
        """Share whose own class is the nearest."""
        return self.top(1)

    @property
    def top5(self) -> float:
        """Share whose own class is among the five nearest."""
        return self.top(5)

    @property
    def mean_reciprocal_rank(self) -> float:
        """Mean of 1 / rank: 1 if every own class is the nearest."""
        return (1.0 / self.ranks.double()).mean().item()

    def top(self, k: int) -> float:
        """Return the share whose own class is among the ``k`` nearest; chance is k / n_classes."""
        return (self.ranks <= k).double().mean().item()


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a reconstruction passes as its person: some gallery picture is nearer than the threshold."""

    accepted: Tensor
    """(N,) bool: passes as its own class."""
    accept_rate: float
    impostor_rate: float
    """Share of (reconstruction, other class) pairs that pass too: what acceptance is worth."""


def identification(descriptors: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor) -> Identification:
    """Rank the own class of each descriptor among the class centroids of the gallery.

    ``descriptors``: (N, d) with (N,) integer ``labels``; ``gallery``: (M, d) with (M,) labels. A
    centroid is the mean over all gallery pictures of the class. Raises `DataError` if the shapes do
    not fit or a label has no picture in the gallery.
    """
    classes, own, members = _match(descriptors, labels, gallery, gallery_labels)
    counts = torch.bincount(members, minlength=len(classes)).unsqueeze(1)
    sums = gallery.new_zeros(len(classes), gallery.shape[1]).double().index_add(0, members, gallery.double())
    distances = _distances(descriptors, sums / counts)
    # "not farther" instead of "nearer": counts the own class, ties, and all classes when NaN.
    ranks = (~(distances > distances.gather(1, own))).sum(1)
    return Identification(ranks=ranks, n_classes=len(classes))


def nearest_same_class(descriptors: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor) -> Tensor:
    """Return the (N,) distances to the nearest gallery picture of the own class (KNN distance, k = 1).

    Arguments and errors as in `identification`. The papers report the square of it.
    """
    classes, own, members = _match(descriptors, labels, gallery, gallery_labels)
    return _nearest_per_class(descriptors, gallery, members, len(classes)).gather(1, own).squeeze(1)


def verification(
    descriptors: Tensor,
    labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    threshold: float = SAME_PERSON,
) -> Verification:
    """Accept a descriptor when its nearest gallery picture of the own class is below ``threshold``.

    Arguments and errors as in `identification`. ``impostor_rate`` is NaN with a single class.
    """
    classes, own, members = _match(descriptors, labels, gallery, gallery_labels)
    passes = _nearest_per_class(descriptors, gallery, members, len(classes)) < threshold
    accepted = passes.gather(1, own).squeeze(1)
    others = passes.sum() - accepted.sum()
    n_other_pairs = passes.numel() - len(accepted)
    return Verification(
        accepted=accepted,
        accept_rate=accepted.double().mean().item(),
        impostor_rate=others.item() / n_other_pairs if n_other_pairs else float("nan"),
    )


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # The faster mode, by matrix multiplication, makes small distances inexact and ties random.
    return torch.cdist(first.double(), second.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _nearest_per_class(descriptors: Tensor, gallery: Tensor, members: Tensor, n_classes: int) -> Tensor:
    """Return the (N, n_classes) distances to the nearest gallery picture of each class."""
    distances = _distances(descriptors, gallery)
    nearest = distances.new_full((len(descriptors), n_classes), float("inf"))
    return nearest.scatter_reduce(1, members.expand_as(distances), distances, "amin")


def _match(
    descriptors: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sorted classes of the gallery and the rows of labels (N, 1) and gallery (M,) in them."""
    if not (len(descriptors) == len(labels) and len(gallery) == len(gallery_labels)):
        raise DataError(
            f"{len(descriptors)} descriptors with {len(labels)} labels, "
            f"gallery of {len(gallery)} with {len(gallery_labels)} labels",
            hint="give one label for each descriptor",
        )
    classes, members = gallery_labels.unique(return_inverse=True)
    absent = sorted(set(labels.tolist()) - set(classes.tolist()))
    if absent:
        raise DataError(
            f"no gallery picture of the classes {absent}",
            hint="give the private pictures of every attacked class",
        )
    return classes, torch.searchsorted(classes, labels).unsqueeze(1), members
