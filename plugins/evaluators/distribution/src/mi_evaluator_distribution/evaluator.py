"""How like the private data all reconstructions of a run are together, in the features of an independent classifier.

Other judges look at one reconstruction at a time and do not see that all are alike, or that they show a corner of a
class only. Compared are the reconstructions of all attacked classes with the private samples of these classes.

- ``fid``, ``kid``: Frechet and kernel distance. The features are those of the evaluator model, trained here, and not of
  the Inception network that papers use: compare them with the controls of the same run and with nothing else. With
  ``extractor``, for images, they are those of a network of the user's, which may be that Inception. FID is biased: it
  falls with the number of samples. KID is not, and is the one to compare.
- ``precision``, ``density``: how many reconstructions lie among private samples; ``recall``, ``coverage``: how many
  private samples have reconstructions around them. Of each class by itself.
- ``diversity``, ``duplicates``, ``nearest-hit``: how much the reconstructions of a class differ (1 - cosine of pairs),
  how many have a twin (cosine above .99), and how many private samples of the class are the nearest of one.

Where too few samples are there for a figure it is no number, and its note says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_distribution.extractors import Extractor, check_modality
from mi_evaluator_distribution.figures import Found, Private, Sets, of_classes, of_sets
from micore.contracts import Config, EvaluatorModel, Measurement, Reference, Samples, Subject
from micore.errors import DataError, ModelError
from micore.kit.dataset_options import DatasetOptions, find_place
from micore.kit.features import features_and_logits
from micore.kit.measuring import Rows, batches_of
from micore.kit.training import placed
from micore.runtime import Random, Runtime, derive_seed


class DistributionConfig(Config):
    """Settings of the evaluator."""

    neighbours: int = Field(
        3, ge=1, description="k of precision, recall, density and coverage (PPA: 3); fewer where classes are small"
    )
    resamples: int = Field(500, ge=1, description="bootstrap resamples over classes behind each interval")
    batch_size: int = Field(256, ge=1, description="samples in one forward pass")
    extractor: str | None = Field(
        None, description="images: file of the network whose features are compared (weights of the FID Inception, or "
        "TorchScript), also below the data root; none: the evaluator model's"
    )  # fmt: skip
    trust: bool = Field(False, description="read a TorchScript extractor although such a file can run code")


class DistributionEvaluator:
    """Compare sets of reconstructions with private data (see the module's documentation)."""

    Config: ClassVar[type[Config]] = DistributionConfig

    def __init__(self, config: DistributionConfig) -> None:
        """Look for the extractor at once: an attack may take hours before its judges are asked.

        Raises: ModelError.
        """
        self.config = config
        self._extractor = find_place(DatasetOptions(), config.extractor) if config.extractor else None
        if self._extractor is not None and not self._extractor.is_file():
            raise ModelError(f"distribution: {self._extractor} does not exist", hint="extractor=FILE")

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike.

        Raises: ModelError without an evaluator model or with an extractor that cannot be used; DataError without
        labelled private data, and with an extractor for data that are no images.
        """
        private = reference.dataset.split("private")
        if private.labels is None:
            raise DataError("distribution: the private split has no labels")
        features, identity, notes = self._source(reference, runtime)
        attacked = Rows.of(subjects[0]).labels.unique()
        rows = torch.isin(private.labels.cpu(), attacked).nonzero().flatten()
        own = torch.cat([features(private.take(part)) for part in rows.split(1024)])
        known = Private(own, private.labels.cpu()[rows])
        found = []
        for subject in subjects:
            laid = Rows.of(subject, reference.truth)
            own = features(reference.modality.join(laid.samples))
            found += self._measured(laid, Sets(own, laid.labels, known), identity, notes)
        return found

    def _source(
        self, reference: Reference, runtime: Runtime
    ) -> tuple[Callable[[Samples], Tensor], str, tuple[str, ...]]:
        """Return what makes features, its identity, and what its figures must be read with."""
        if self._extractor is not None:
            check_modality(reference.dataset.modality)
            extractor = Extractor(self._extractor, runtime, trusted=self.config.trust)
            return extractor, extractor.digest[:12], (extractor.note,)
        judge = reference.judge()
        name = judge.bundle.card.model.name
        note = f"features of {name}, trained here; not comparable with Inception's"
        return lambda samples: self._features(judge, samples, runtime), judge.identity, (note, *judge.notes)

    @torch.no_grad()
    def _features(self, judge: EvaluatorModel, samples: Samples, runtime: Runtime) -> Tensor:
        parts = [
            features_and_logits(judge.module, judge.adapter(placed(batch, runtime)).to(runtime.device))[0].float().cpu()
            for batch in batches_of(samples, self.config.batch_size)
        ]
        return torch.cat(parts)

    def _measured(self, rows: Rows, sets: Sets, identity: str, notes: tuple[str, ...]) -> list[Measurement]:
        evaluator = f"distribution@{identity}"
        sets, lost = sets.readable()
        if lost:
            notes = (*notes, f"{lost} samples that the judge cannot read left out")
        rng = Random(derive_seed(evaluator, rows.subject))
        resamples = self.config.resamples
        figures: list[Found] = [
            *of_sets(sets, resamples, rng),
            *of_classes(sets, rows, self.config.neighbours, resamples),
        ]
        return [
            Measurement(
                name=figure.name, subject=rows.subject, value=figure.value, interval=figure.interval,
                n=len(sets.found), clusters=len(sets.classes), unit=figure.unit, direction=figure.direction,
                evaluator=evaluator, per_case=figure.per_case, notes=(*notes, *figure.notes),
            )
            for figure in figures
        ]  # fmt: skip
