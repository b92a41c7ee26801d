"""Attack accuracy: the share of reconstructions that an independent classifier takes for their class.

``accuracy@1`` and ``accuracy@5`` count those where the class is its first choice, or among its first five;
``confidence`` is the mean probability that it gives to the class.

Defined over all reconstructions that the attack gave back, not over selected or successful ones. The
judge is a classifier of other architecture, seed and augmentation than the target; where the data set
has labelled public classes it knows those too, so that a reconstruction of a wrong kind is not forced
into a private class.

For goal ``instance`` the class is that of the private sample behind the case: is it recognised by what was
recovered? The adversary did not know the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from micore.contracts import Config, EvaluatorModel, Measurement, Reference, Samples, Subject
from micore.kit.measuring import Figure, Rows, batches_of, measure
from micore.kit.training import placed
from micore.runtime import Runtime


class AccuracyConfig(Config):
    """Settings of the evaluator."""

    batch_size: int = Field(256, ge=1, description="samples in one forward pass")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


class AccuracyEvaluator:
    """Judge with an independent classifier whether the class of each case is recognised in what was recovered."""

    Config: ClassVar[type[Config]] = AccuracyConfig

    def __init__(self, config: AccuracyConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure top-1 and top-5 accuracy and the judge's confidence, for every subject alike.

        Raises: ModelError without an evaluator model.
        """
        judge = reference.judge()
        found = []
        for subject in subjects:
            rows = Rows.of(subject, reference.truth)
            logits = self._logits(judge, reference.modality.join(rows.samples), runtime)
            for figure in figures(logits, rows.labels, judge.notes):
                found.append(measure(figure, rows, f"accuracy@{judge.identity}", resamples=self.config.resamples))
        return found

    @torch.no_grad()
    def _logits(self, judge: EvaluatorModel, samples: Samples, runtime: Runtime) -> Tensor:
        batches = batches_of(samples, self.config.batch_size)
        return torch.cat(
            [judge.module(judge.adapter(placed(batch, runtime)).to(runtime.device)).float().cpu() for batch in batches]
        )


def figures(logits: Tensor, labels: Tensor, notes: tuple[str, ...] = ()) -> list[Figure]:
    """Turn logits (N, K) and claimed labels (N,) into figures.

    Top-5 is left out where the judge knows so few classes that it would say little (K <= 5). A sample that
    the judge cannot read (its logits are not finite) is a miss with confidence 0: were it left out, an
    attack would look better for every sample that it spoils.
    """
    ranks = rank_of_label(logits, labels)
    unreadable = ~logits.isfinite().all(dim=1)
    confidence = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0].masked_fill(unreadable, 0.0)
    notes = (f"judge knows {logits.shape[1]} classes", *notes)
    if lost := int(unreadable.sum()):
        notes = (*notes, f"{lost} samples that the judge cannot read count as misses")
    found = [Figure("accuracy@1", (ranks == 0).double(), "share", "up", notes)]
    if logits.shape[1] > 5:
        found.append(Figure("accuracy@5", (ranks < 5).double(), "share", "up", notes))
    return [*found, Figure("confidence", confidence, "probability", "up", notes)]


def rank_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the claimed one, (N,); equal logits count against it.

    A row with a logit that is not finite has the last rank, K - 1.
    """
    own = logits.gather(1, labels[:, None])
    ranks = (logits >= own).sum(dim=1) - 1
    return ranks.masked_fill(~logits.isfinite().all(dim=1), logits.shape[1] - 1)
