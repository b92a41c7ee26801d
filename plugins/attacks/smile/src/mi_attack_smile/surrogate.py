"""A surrogate of the target, from its scores of samples of the prior, most of which look like a few classes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mi_image.bank import CandidateBank
from mi_image.students import StudentSettings, student_states
from micore.kit.case_rows import tiled
from micore.kit.losses import cross_entropy
from micore.runtime import Runtime

__all__ = ["balanced_rows", "surprise_of_surrogates", "surrogate_state"]

DRAWS_PER_SAMPLE = 2
"""How often a sample of the prior stands in the surrogate's training data, on average."""


def balanced_rows(scores: Tensor, shares: Tensor, balance: float) -> Tensor:
    """Draw rows of scores (N, K) so that rare classes are not forgotten: indices (M,), for shares (M,) in [0, 1).

    A row is of the class with its largest score. Its weight is n to the power of -balance, where n counts the rows of
    its class: at 1 all classes that occur are drawn equally often, at 0 all rows.
    """
    classes = scores.argmax(dim=1)
    counts = torch.zeros(scores.shape[1], dtype=torch.float64, device=scores.device)
    counts.scatter_add_(0, classes, torch.ones_like(classes, dtype=torch.float64))
    heights = counts[classes].pow(-balance).cumsum(dim=0)
    places = torch.searchsorted(heights, shares.double() * heights[-1], right=True)
    return places.clamp(max=len(scores) - 1)


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """How surrogates learn: the networks and their training, and how much rare classes are favoured."""

    students: StudentSettings
    balance: float


def surrogate_state(
    render: Callable[[Tensor], Tensor], bank: CandidateBank, teaching: Teaching, runtime: Runtime
) -> Mapping[str, Any]:
    """Train surrogates on the bank's samples; return plain data for `mi_image.students.restore_students`.

    They learn the target's scores (KL divergence) of samples that are drawn by `balanced_rows`.
    """
    images = tiled(render, runtime.tile, bank.styles)
    shares = runtime.rng("surrogate", "rows").uniform((DRAWS_PER_SAMPLE * len(images),))
    rows = balanced_rows(bank.scores, shares, teaching.balance)
    return student_states(images[rows], bank.scores[rows], teaching.students, runtime)


def surprise_of_surrogates(
    surrogates: Sequence[nn.Module], render: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, Mapping[str, Tensor], Tensor], Tensor]:
    """Return the objective of a search: the surrogates' mean cross-entropy (B,) of what codes (B, w_dim) show."""

    def objective(styles: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        images = render(styles)
        losses = [cross_entropy(surrogate(images), rows["labels"]) for surrogate in surrogates]
        return torch.stack(losses).mean(dim=0)

    return objective
