"""Nearest-neighbour distance in the penultimate features of an independent classifier.

For each reconstruction the squared L2 distance to the nearest private training sample of its class
("KNN distance" of the GMI line; not divided by the dimension), and the cosine distance, which can be
read without knowing the judge. Two things are measured beside it:

- ``distance-public``: the distance of the same reconstruction to the nearest *public* sample. Where it
  is smaller than the distance to private samples, the attack gave back public data.
- the subject ``nearest-public``: for each class, the public samples that come nearest to the private
  ones. It is what a perfect choice among the adversary's own data would reach, without any attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from micore.contracts import Config, EvaluatorModel, Measurement, Reference, Samples, Split, Subject
from micore.errors import DataError
from micore.kit.features import features_and_logits
from micore.kit.measuring import Figure, Rows, batches_of, measure
from micore.runtime import Runtime

NEAREST_PUBLIC = "nearest-public"


class DistanceConfig(Config):
    """Settings of the evaluator."""

    batch_size: int = Field(256, ge=1, description="samples in one forward pass")
    public_limit: int = Field(20000, ge=1, description="public samples compared with, the first of the split")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Gallery:
    """Features (M, d) of the private samples with their labels (M,), and of the public ones (P, d), on the CPU."""

    private: Tensor
    labels: Tensor
    public: Tensor | None


class DistanceEvaluator:
    """Judge reconstructions of a class by how near they come to private samples."""

    Config: ClassVar[type[Config]] = DistanceConfig

    def __init__(self, config: DistanceConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike, and the nearest public samples beside them.

        Raises: ModelError without an evaluator model; DataError without labelled private data.
        """
        judge = reference.judge()
        gallery = self._gallery(judge, reference, runtime)
        found: list[Measurement] = []
        for subject in subjects:
            rows = Rows.of(subject)
            features = self._features(judge, reference.modality.join(rows.samples), runtime)
            found += self._measured(features, rows, gallery, judge)
        if gallery.public is not None:
            found += self._nearest_public(Rows.of(subjects[0]), gallery, gallery.public, judge)
        return found

    def _measured(self, features: Tensor, rows: Rows, gallery: Gallery, judge: EvaluatorModel) -> list[Measurement]:
        identity = f"distance@{judge.identity}"
        return [
            measure(figure, rows, identity, resamples=self.config.resamples)
            for figure in figures(features, rows.labels, gallery, judge.notes)
        ]

    def _nearest_public(self, rows: Rows, gallery: Gallery, public: Tensor, judge: EvaluatorModel) -> list[Measurement]:
        """Measure, in place of each reconstruction, one of the public samples nearest to its class."""
        chosen = nearest_public(public, rows.labels, gallery)
        control = Rows(NEAREST_PUBLIC, rows.samples, rows.case_ids, rows.positions, rows.labels)
        return self._measured(public[chosen], control, gallery, judge)

    def _gallery(self, judge: EvaluatorModel, reference: Reference, runtime: Runtime) -> Gallery:
        private = reference.dataset.split("private")
        if private.labels is None:
            raise DataError("distance: the private split has no labels")
        return Gallery(
            private=self._split_features(judge, private, len(private), runtime),
            labels=private.labels.cpu(),
            public=self._public(judge, reference, runtime),
        )

    def _public(self, judge: EvaluatorModel, reference: Reference, runtime: Runtime) -> Tensor | None:
        try:
            public = reference.dataset.split("public")
        except DataError:
            return None
        n = min(len(public), self.config.public_limit)
        return self._split_features(judge, public, n, runtime) if n else None

    def _split_features(self, judge: EvaluatorModel, split: Split, n: int, runtime: Runtime) -> Tensor:
        batches = torch.arange(n).split(self.config.batch_size)
        return torch.cat([self._features(judge, split.take(indices), runtime) for indices in batches])

    @torch.no_grad()
    def _features(self, judge: EvaluatorModel, samples: Samples, runtime: Runtime) -> Tensor:
        parts = [
            features_and_logits(judge.module, judge.adapter(batch.to(runtime.device)))[0].float().cpu()
            for batch in batches_of(samples, self.config.batch_size)
        ]
        return torch.cat(parts)


def figures(features: Tensor, labels: Tensor, gallery: Gallery, notes: tuple[str, ...] = ()) -> list[Figure]:
    """Turn features (N, d) and claimed labels (N,) into distances to private and public samples."""
    unit = torch.nn.functional.normalize
    found = [
        Figure(
            "distance-private", nearest_of_class(features, labels, gallery.private, gallery.labels),
            "squared L2", "down", notes,
        ),
        Figure(
            "cosine-private",
            nearest_of_class(unit(features), labels, unit(gallery.private), gallery.labels) / 2,
            "1 - cosine", "down", notes,
        ),
    ]  # fmt: skip
    if gallery.public is not None:
        nearest = squared_distances(features, gallery.public).min(dim=1).values
        found.append(Figure("distance-public", nearest, "squared L2", "none", notes))
    return found


def squared_distances(features: Tensor, others: Tensor) -> Tensor:
    """Return the squared L2 distance of every pair, (N, M), in float64."""
    return torch.cdist(features.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def nearest_of_class(features: Tensor, labels: Tensor, private: Tensor, private_labels: Tensor) -> Tensor:
    """Return the squared L2 distance to the nearest private sample of the claimed class, (N,); NaN without any."""
    distances = squared_distances(features, private)
    distances = distances.masked_fill(labels[:, None] != private_labels[None, :], torch.inf)
    nearest = distances.min(dim=1).values
    return nearest.masked_fill(nearest.isinf(), torch.nan)


def nearest_public(public: Tensor, labels: Tensor, gallery: Gallery) -> Tensor:
    """Return for each row of ``labels`` (N,) a public sample: the k-th row of a class gets the k-th nearest.

    Rows of a class without private samples get the first one: they have no distance to private samples anyway.
    """
    chosen = torch.zeros_like(labels)
    for label in labels.unique().tolist():
        members = gallery.private[gallery.labels == label]
        if len(members) == 0:
            continue
        rows = (labels == label).nonzero().flatten()
        order = squared_distances(public, members).min(dim=1).values.argsort(stable=True)
        chosen[rows] = order[torch.arange(len(rows)) % len(order)]
    return chosen
