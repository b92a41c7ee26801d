"""Nearest-neighbour distance in the penultimate features of an independent classifier.

For each reconstruction the squared L2 distance to the nearest private training sample of its class, and the cosine
distance, which can be read without knowing the judge. The first is the "KNN distance" (k = 1) as the code of KED-MI,
LOMMA, PLG-MI, TL-DMI, PPA and MIBench has it: features before the last layer, neither normalised nor divided by their
number, all private training samples of the class. C2F-MI and LeakPro take the root, LeakPro between logits: such
figures do not compare with these. Three things are measured beside it:

- ``distance-ratio``: the distance over the mean distance of held-out private samples of the same class (where the data
  set has them), so 1 is what a real, unknown sample has. It can be read beside the ratio of another judge.
- ``distance-public``: the distance of the same reconstruction to the nearest *public* sample. Where it
  is smaller than the distance to private samples, the attack gave back public data.
- the subject ``nearest-public``: for each class, the public samples that come nearest to the private
  ones. It is what a perfect choice among the adversary's own data would reach, without any attack.

For goal ``instance`` the distance is that to the very sample which a case is about (``distance-truth``,
``cosine-truth``). The subject ``holdout`` then shows how near *another* real sample of the class comes: what an
attack reaches that recovers the class and nothing of the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from micore.contracts import Config, EvaluatorModel, Measurement, Reference, Samples, Split, Subject
from micore.errors import DataError
from micore.kit.features import features_and_logits
from micore.kit.measuring import Figure, Rows, batches_of, measure
from micore.kit.training import placed
from micore.runtime import Runtime

NEAREST_PUBLIC = "nearest-public"
ROUNDING = 1e-9
"""Held-out samples that are this near, by the squared length of features, are private samples."""
HELD_OUT = 200
"""Held-out samples of a class that its scale is the mean of, the first of the split."""
VARIANT = "KNN distance with k = 1: squared L2, features not normalised, all private training samples of the class"


class DistanceConfig(Config):
    """Settings of the evaluator."""

    batch_size: int = Field(256, ge=1, description="samples in one forward pass")
    public_limit: int = Field(20000, ge=1, description="public samples compared with, the first of the split")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Gallery:
    """Features (M, d) of the private samples with their labels (M,), and of the public ones (P, d), on the CPU.

    scales: by class, the mean distance of held-out samples to its private ones; empty where there are none.
    """

    private: Tensor
    labels: Tensor
    public: Tensor | None
    scales: Mapping[int, float] = field(default_factory=dict)


class DistanceEvaluator:
    """Judge reconstructions of a class by how near they come to private samples."""

    Config: ClassVar[type[Config]] = DistanceConfig

    def __init__(self, config: DistanceConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike, and for classes the nearest public samples beside them.

        Raises: ModelError without an evaluator model; DataError without labelled private data, or the truth of a case.
        """
        judge = reference.judge()
        if all(item.case.goal == "instance" for subject in subjects for item in subject.reconstructions):
            return [found for subject in subjects for found in self._to_truth(subject, reference, judge, runtime)]
        gallery = self._gallery(judge, reference, runtime)
        found: list[Measurement] = []
        for subject in subjects:
            rows = Rows.of(subject)
            features = self._features(judge, reference.modality.join(rows.samples), runtime)
            found += self._measured(features, rows, gallery, judge)
        if gallery.public is not None:
            found += self._nearest_public(Rows.of(subjects[0]), gallery, gallery.public, judge)
        return found

    def _to_truth(
        self, subject: Subject, reference: Reference, judge: EvaluatorModel, runtime: Runtime
    ) -> list[Measurement]:
        rows = Rows.of(subject, reference.truth, labelled=False)
        unknown = [case_id for case_id in rows.case_ids if case_id not in reference.truth]
        if unknown:
            raise DataError(f"distance: nobody knows the truth of {', '.join(unknown[:3])} ({len(unknown)} cases)")
        samples = reference.modality.join([reference.truth[case_id].sample for case_id in rows.case_ids])
        truth = self._features(judge, samples, runtime)[rows.positions]
        features = self._features(judge, reference.modality.join(rows.samples), runtime)
        identity = f"distance@{judge.identity}"
        return [
            measure(figure, rows, identity, resamples=self.config.resamples)
            for figure in truth_figures(features, truth, judge.notes)
        ]

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
        features, labels = self._split_features(judge, private, len(private), runtime), private.labels.cpu()
        return Gallery(
            private=features, labels=labels, public=self._public(judge, reference, runtime),
            scales=self._scales(features, labels, judge, reference, runtime),
        )  # fmt: skip

    def _scales(
        self, private: Tensor, labels: Tensor, judge: EvaluatorModel, reference: Reference, runtime: Runtime
    ) -> dict[int, float]:
        """Return by class how far held-out samples are from private ones; no class where they are the private ones."""
        try:
            holdout = reference.dataset.split("holdout")
        except DataError:
            return {}
        if holdout.labels is None:
            return {}
        known = holdout.labels.cpu()
        chosen = torch.cat([(known == label).nonzero().flatten()[:HELD_OUT] for label in labels.unique()])
        if not len(chosen):
            return {}
        batches = chosen.split(self.config.batch_size)
        features = torch.cat([self._features(judge, holdout.take(rows), runtime) for rows in batches])
        least = ROUNDING * float(private.double().square().sum(dim=1).mean())
        means = {
            label: float(nearest_in(features[known[chosen] == label], private[labels == label]).mean())
            for label in known[chosen].unique().tolist()
        }
        return {label: mean for label, mean in means.items() if mean > least}

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
            features_and_logits(judge.module, judge.adapter(placed(batch, runtime)).to(runtime.device))[0].float().cpu()
            for batch in batches_of(samples, self.config.batch_size)
        ]
        return torch.cat(parts)


def figures(features: Tensor, labels: Tensor, gallery: Gallery, notes: tuple[str, ...] = ()) -> list[Figure]:
    """Turn features (N, d) and claimed labels (N,) into distances to private and public samples."""
    unit = torch.nn.functional.normalize
    nearest = nearest_of_class(features, labels, gallery.private, gallery.labels)
    turned = nearest_of_class(unit(features), labels, unit(gallery.private), gallery.labels) / 2
    found = [
        Figure("distance-private", nearest, "squared L2", "down", (VARIANT, *notes)),
        Figure("cosine-private", turned, "1 - cosine", "down", notes),
    ]
    if gallery.scales:
        of = "1: the mean of held-out samples of the class, of which the interval knows nothing"
        scales = torch.tensor([gallery.scales.get(int(label), torch.nan) for label in labels], dtype=torch.float64)
        found.append(Figure("distance-ratio", nearest / scales, "of held-out", "down", (of, *notes)))
    if gallery.public is not None:
        away = nearest_in(features, gallery.public)
        found.append(Figure("distance-public", away, "squared L2", "none", notes))
    return found


def truth_figures(features: Tensor, truth: Tensor, notes: tuple[str, ...] = ()) -> list[Figure]:
    """Turn features (N, d) and those of the true samples (N, d) into distances of the pairs."""
    unit = torch.nn.functional.normalize
    squared, turned = (
        (one - other).square().sum(dim=1)
        for one, other in (
            (features.double(), truth.double()),
            (unit(features.double()), unit(truth.double())),
        )
    )
    return [
        Figure("distance-truth", squared, "squared L2", "down", notes),
        Figure("cosine-truth", turned / 2, "1 - cosine", "down", notes),
    ]


def squared_distances(features: Tensor, others: Tensor) -> Tensor:
    """Return the squared L2 distance of every pair, (N, M), in float64."""
    return torch.cdist(features.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def nearest_in(features: Tensor, others: Tensor) -> Tensor:
    """Return the squared L2 distance to the nearest of the others, (N,)."""
    return squared_distances(features, others).min(dim=1).values


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
