"""Are reconstructions nearer to private than to held-out samples of their class?

An attack that only learned what the class looks like is near both alike, about half of the time.
Root-mean-square difference to the nearest of equally many samples of each
split; blind to shifts and crops. No paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from micore.contracts import Config, Interval, Measurement, Reconstruction, Reference, Subject
from micore.errors import DataError
from micore.kit.statistics import cluster_bootstrap
from micore.runtime import Runtime

EVALUATOR = "acme-memory@1.0.0"  # figures of different versions are not compared


class AcmeMemoryConfig(Config):
    """Settings of the judge."""

    most: int = Field(200, ge=1, description="At most so many samples of each split and class")


class AcmeMemory:
    """Measure the share of samples that are nearer to private data."""

    Config: ClassVar[type[Config]] = AcmeMemoryConfig

    def __init__(self, config: AcmeMemoryConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject in the same way; cases are the clusters."""
        return [self._measure(subject, reference, runtime) for subject in subjects if subject.reconstructions]

    def _measure(self, subject: Subject, reference: Reference, runtime: Runtime) -> Measurement:
        shares = {item.case.id: self._share(item, reference) for item in subject.reconstructions}
        found, seed = list(shares.values()), runtime.rng("acme-memory", subject.name).seed()
        interval = None
        if len(found) > 1:  # a single case tells nothing of others
            drawn = cluster_bootstrap(found, list(shares), rng=seed)
            interval = Interval(low=drawn.low, high=drawn.high, level=drawn.level)
        return Measurement(
            name="acme-memory", subject=subject.name, value=sum(found) / len(found), interval=interval,
            n=len(found), clusters=len(found), unit="share", direction="up", evaluator=EVALUATOR, per_case=shares,
        )  # fmt: skip

    def _share(self, item: Reconstruction, reference: Reference) -> float:
        private, holdout = (self._own(name, item, reference) for name in ("private", "holdout"))
        n = min(len(private), len(holdout), self.config.most)
        samples = torch.as_tensor(item.samples).flatten(1)
        nearer = _nearest(samples, private[:n]) < _nearest(samples, holdout[:n])
        return float(nearer.float().mean())

    def _own(self, name: str, item: Reconstruction, reference: Reference) -> Tensor:
        """Return the samples of the case's class, (n, D).

        Raises: DataError when there are none.
        """
        split, label = reference.dataset.split(name), item.case.label
        if split.labels is None or label is None or not bool(split.labels.eq(label).any()):
            raise DataError(f"case {item.case.id!r} has no {name} samples to compare with")
        return torch.as_tensor(split.take(split.labels.eq(label).nonzero().flatten())).flatten(1)


def _nearest(samples: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(samples.cpu().double(), others.double()).min(dim=1).values
