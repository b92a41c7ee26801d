"""Reconstructions of a class against the private pictures, by a published face descriptor that no attack saw.

- ``face-top1``, ``face-top5``: the share whose own class is the nearest, or among the nearest five, of all private
  classes' centroids; ``face-reciprocal-rank``: one over its rank.
- ``face-distance``: L2 distance to the nearest private picture of the class; ``face-verified``: the share below the
  threshold, to be read beside the share of other classes that pass (its note).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_face_descriptor.descriptor import EYES, Point, describe
from mi_evaluator_face_descriptor.matching import (
    STRICT,
    identification,
    nearest_same_class,
    verification,
)
from mi_evaluator_face_descriptor.network import FaceDescriptor
from mi_evaluator_face_descriptor.weights import HOW_TO_GET, fingerprint, load_network
from micore.contracts import Config, Measurement, Reference, Split, Subject
from micore.errors import DataError, ModelError
from micore.kit.measuring import Figure, Rows, measure
from micore.runtime import Runtime

WEIGHTS_VARIABLE = "MI_FACE_DESCRIPTOR"
"""Environment variable with the path of the weights, for when the config names none."""


class FaceDescriptorConfig(Config):
    """Settings of the evaluator."""

    weights: str | None = Field(None, description=f"path of the weights (see the README); default: ${WEIGHTS_VARIABLE}")
    eyes: tuple[Point, Point] = Field(
        EYES, description="left and right eye in every picture, (x, y) as fractions of width and height"
    )
    threshold: float = Field(
        STRICT, gt=0, description="distance below which two faces are one person (dlib: 0.6, for single pairs)"
    )
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

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure rank, distance and verification of every subject.

        Raises `ModelError` without usable weights, `DataError` on data that are not labelled faces.
        """
        network = runtime.place(load_network(self._weights()))
        judge = f"face-descriptor@{fingerprint(network)[:12]}"
        gallery, gallery_labels = self._gallery(network, reference.dataset.split("private"))
        measurements: list[Measurement] = []
        for subject in subjects:
            rows = Rows.of(subject)
            descriptors = self._describe(network, reference.modality.join(rows.samples))
            for figure in self._figures(descriptors, rows.labels, gallery, gallery_labels):
                measurements.append(measure(figure, rows, judge, resamples=self.config.resamples))
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

    def _figures(self, descriptors: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor) -> list[Figure]:
        line_up = identification(descriptors, labels, gallery, gallery_labels)
        distances = nearest_same_class(descriptors, labels, gallery, gallery_labels)
        verified = verification(descriptors, labels, gallery, gallery_labels, self.config.threshold)
        chance = f"line-up of {line_up.n_classes} classes"
        passing = f"threshold {self.config.threshold:g}; of other classes {verified.impostor_rate:.2%} pass"
        return [
            Figure("face-top1", (line_up.ranks <= 1).double(), "share", "up", (chance,)),
            Figure("face-top5", (line_up.ranks <= 5).double(), "share", "up", (chance,)),
            Figure("face-reciprocal-rank", 1.0 / line_up.ranks.double(), "1/rank", "up", (chance,)),
            Figure("face-distance", distances, "L2", "down", ("to the nearest private picture of the class",)),
            Figure("face-verified", verified.accepted.double(), "share", "up", (passing,)),
        ]
