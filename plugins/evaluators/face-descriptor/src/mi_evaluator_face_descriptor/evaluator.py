"""The evaluator: reconstructions of a class against the private pictures, by face descriptor."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_face_descriptor.descriptor import EYES, Point, describe
from mi_evaluator_face_descriptor.matching import (
    SAME_PERSON,
    identification,
    nearest_same_class,
    verification,
)
from mi_evaluator_face_descriptor.network import FaceDescriptor
from mi_evaluator_face_descriptor.weights import HOW_TO_GET, fingerprint, load_network
from micore.contracts import Config, Interval, Measurement, Reference, Split, Subject
from micore.errors import DataError, ModelError
from micore.kit.statistics import cluster_bootstrap
from micore.runtime import Runtime

WEIGHTS_VARIABLE = "MI_FACE_DESCRIPTOR"
"""Environment variable with the path of the weights, for when the config names none."""


class FaceDescriptorConfig(Config):
    """Settings of the evaluator."""

    weights: str | None = Field(
        None, description=f"path of the weights (see the README); default: ${WEIGHTS_VARIABLE}"
    )
    eyes: tuple[Point, Point] = Field(
        EYES, description="left and right eye in every picture, (x, y) as fractions of width and height"
    )
    threshold: float = Field(SAME_PERSON, gt=0, description="distance below which two faces are one person")
    batch_size: int = Field(64, gt=0, description="faces in one forward pass")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples behind each interval")


class FaceDescriptorEvaluator:
    """Judge reconstructions of a class by the face they show, against the private pictures.

    All samples of all cases count, the attack's own choice among them is not asked. A value is the
    mean over classes of the mean over samples; its interval is a bootstrap over classes, since the
    samples of one class are not independent.
    """

    Config: ClassVar[type[Config]] = FaceDescriptorConfig

    def __init__(self, config: FaceDescriptorConfig) -> None:
        self.config = config

    def evaluate(
        self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime
    ) -> list[Measurement]:
        """Measure rank, distance and verification of every subject.

        Raises `ModelError` without usable weights, `DataError` on data that are not labelled faces.
        """
        network = runtime.place(load_network(self._weights()))
        judge = f"face-descriptor {fingerprint(network)[:12]}"
        gallery, gallery_labels = self._gallery(network, reference.dataset.split("private"))
        measurements: list[Measurement] = []
        for subject in subjects:
            rows = _Rows.of(subject)
            descriptors = torch.cat([self._describe(network, samples) for samples in rows.samples])
            for figure in self._figures(descriptors, rows.labels, gallery, gallery_labels):
                seed = runtime.rng("face-descriptor", subject.name, figure.name).seed()
                measurements.append(_measurement(figure, rows, judge, seed, self.config.resamples))
        return measurements

    def _weights(self) -> str:
        path = self.config.weights or os.environ.get(WEIGHTS_VARIABLE)
        if not path:
            hint = f"set weights or ${WEIGHTS_VARIABLE}; {HOW_TO_GET}"
            raise ModelError("face-descriptor: no weights given", hint=hint)
        return path

    def _describe(self, network: FaceDescriptor, images: Tensor) -> Tensor:
        return describe(network, images, self.config.batch_size, self.config.eyes)

    def _gallery(self, network: FaceDescriptor, private: Split) -> tuple[Tensor, Tensor]:
        """Describe the private pictures, a batch at a time."""
        if private.labels is None or len(private) == 0:
            raise DataError("face-descriptor: the private split has no labelled pictures")
        parts = [
            self._describe(network, private.take(indices))
            for indices in torch.arange(len(private)).split(self.config.batch_size)
        ]
        return torch.cat(parts), private.labels.cpu()

    def _figures(
        self, descriptors: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor
    ) -> list[_Figure]:
        line_up = identification(descriptors, labels, gallery, gallery_labels)
        distances = nearest_same_class(descriptors, labels, gallery, gallery_labels)
        verified = verification(descriptors, labels, gallery, gallery_labels, self.config.threshold)
        chance = f"line-up of {line_up.n_classes} classes"
        passing = f"threshold {self.config.threshold:g}; of other classes {verified.impostor_rate:.2%} pass"
        return [
            _Figure("face_top1", (line_up.ranks <= 1).double(), "share", "up", chance),
            _Figure("face_top5", (line_up.ranks <= 5).double(), "share", "up", chance),
            _Figure("face_reciprocal_rank", 1.0 / line_up.ranks.double(), "1/rank", "up", chance),
            _Figure("face_distance", distances, "L2", "down", "to the nearest private picture of the class"),
            _Figure("face_verified", verified.accepted.double(), "share", "up", passing),
        ]


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    values: Tensor  # (N,) float64, NaN where a sample has none
    unit: str
    direction: str
    note: str


@dataclass(frozen=True, slots=True)
class _Rows:
    """The samples of all cases of a subject, one after another."""

    subject: str
    samples: list[Tensor]
    case_ids: list[str]
    cases: Tensor  # (N,) position in case_ids
    labels: Tensor  # (N,) class

    @classmethod
    def of(cls, subject: Subject) -> _Rows:
        unlabelled = [item.case.id for item in subject.reconstructions if item.case.label is None]
        if unlabelled or not any(len(item.samples) for item in subject.reconstructions):
            raise DataError(f"face-descriptor: {subject.name} has no samples of a class, cases {unlabelled}")
        sizes = torch.tensor([len(item.samples) for item in subject.reconstructions])
        classes = torch.tensor([item.case.label for item in subject.reconstructions])
        return cls(
            subject=subject.name,
            samples=[item.samples for item in subject.reconstructions],
            case_ids=[item.case.id for item in subject.reconstructions],
            cases=torch.arange(len(sizes)).repeat_interleave(sizes),
            labels=classes.repeat_interleave(sizes),
        )


def _measurement(figure: _Figure, rows: _Rows, judge: str, seed: int, resamples: int) -> Measurement:
    valid = figure.values.isfinite()
    values = figure.values[valid]
    if len(values) == 0:
        raise DataError(f"face-descriptor: no sample of {rows.subject} is a picture of finite values")
    per_class = torch.stack(list(_group_means(values, rows.labels[valid]).values()))
    left_out = (f"{int((~valid).sum())} samples without finite values left out",) if not valid.all() else ()
    per_case = _group_means(values, rows.cases[valid])
    return Measurement(
        name=figure.name,
        subject=rows.subject,
        value=per_class.mean().item(),
        interval=_interval(per_class, seed, resamples),
        n=len(values),
        clusters=len(per_class),
        unit=figure.unit,
        direction=figure.direction,
        evaluator=judge,
        per_case={rows.case_ids[case]: value.item() for case, value in per_case.items()},
        notes=(figure.note, *left_out),
    )


def _group_means(values: Tensor, groups: Tensor) -> dict[int, Tensor]:
    return {group: values[groups == group].mean() for group in groups.unique().tolist()}


def _interval(per_class: Tensor, seed: int, resamples: int) -> Interval | None:
    """Return a bootstrap interval over classes, or None where the data cannot bound the mean."""
    found = cluster_bootstrap(per_class.numpy(), range(len(per_class)), rng=seed, resamples=resamples)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None
    return Interval(low=found.low, high=found.high, level=found.level)
