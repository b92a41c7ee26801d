"""The same question asked several times, and what the answers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from micore.runtime import Runtime

__all__ = ["Repeats", "majority"]

Query = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How often a batch is asked, whole batch after whole batch, and by how much the later ones are moved.

    jitter: standard deviation of the change, in the range [0, 1] of samples. The changes are drawn once, one for each
    repeat, and are the same for all samples: what is recovered of one case depends on no other.
    """

    repeats: int
    jitter: float
    runtime: Runtime

    def mean_scores(self, ask: Query) -> Query:
        """Return a query that gives the mean of the answers, (N, K)."""
        asked = self._asked(ask)
        return lambda samples: torch.stack([answer.float() for answer in asked(samples)]).mean(dim=0)

    def majority_labels(self, ask: Query, n_classes: int) -> Query:
        """Return a query that gives the most frequent answer, (N,)."""
        asked = self._asked(ask)
        return lambda samples: majority(torch.stack(list(asked(samples))), n_classes)

    def _asked(self, ask: Query) -> Callable[[Tensor], Iterator[Tensor]]:
        @cache
        def change(number: int, shape: tuple[int, ...]) -> Tensor:
            return self.jitter * self.runtime.rng("averaging", "jitter", number).normal(shape)

        def asked(samples: Tensor) -> Iterator[Tensor]:
            yield ask(samples)
            for number in range(1, self.repeats):
                moved = (samples + change(number, tuple(samples.shape[1:]))).clamp(0, 1) if self.jitter else samples
                yield ask(moved)

        return asked


def majority(labels: Tensor, n_classes: int) -> Tensor:
    """Return the most frequent of labels (R, N), (N,); among equals the first answer's, then the lowest class."""
    votes = functional.one_hot(labels, n_classes).sum(dim=0)
    first = functional.one_hot(labels[0], n_classes)
    return (2 * votes + first).argmax(dim=1)
