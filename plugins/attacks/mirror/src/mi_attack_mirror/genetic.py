"""What MIRROR's genetic search needs beside the operators of `micore.kit.evolution`: losses, shares, populations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_attack_mirror.space import code_box
from mi_image.bank import CandidateBank
from micore.contracts import Case
from micore.kit.projections import Box, to_p_space
from micore.kit.selection import stable_top_k

__all__ = [
    "PointSpace", "negative_log_odds", "negative_log_probability", "point_space", "published_share",
    "start_populations",
]  # fmt: skip

LEAST = 1e-30
"""Scores below this count as this: answers may be rounded to 0, or leave a class out."""

Fitness = Callable[[Tensor, Tensor], Tensor]
"""The target's answers (B, K) and the classes wanted of them (B,) -> losses (B,), the negative fitness."""


def negative_log_probability(answers: Tensor, labels: Tensor) -> Tensor:
    """Return -log p of the class, (B,)."""
    return -_least(_own(answers, labels)).log()


def negative_log_odds(answers: Tensor, labels: Tensor) -> Tensor:
    """Return -log of p / (1 - p), (B,): it still tells members apart where p is 1 to the last digit.

    1 - p is the sum of the other scores, which floating point resolves far below one part in 10 million. An answer
    that shows no other score leaves 1 - p itself.
    """
    own = _own(answers, labels)
    others = answers.scatter(1, labels[:, None], 0.0).sum(dim=1)
    return _least(torch.where(others > 0, others, 1 - own)).log() - _least(own).log()


def _own(answers: Tensor, labels: Tensor) -> Tensor:
    return answers.gather(1, labels[:, None])[:, 0]


def _least(scores: Tensor) -> Tensor:
    return scores.clamp(min=LEAST)


def published_share(first: Tensor, second: Tensor) -> Tensor:
    """Return f1 / (f1 + f2) of fitnesses f = log p = -loss, as published: the worse parent gives more.

    Where both are 0, so p = 1, the authors' quotient is no number, and the second parent gives everything.
    """
    total = first + second
    return torch.where(total > 0, first / total, torch.zeros_like(total))


@dataclass(frozen=True, kw_only=True)
class PointSpace:
    """P space as the search sees it: the box that holds children, and the deviations of samples (w_dim,) in it."""

    box: Box
    spread: Tensor


def point_space(bank: CandidateBank, width: float) -> PointSpace:
    """Return the box of `code_box` in P space, and the samples' deviation in each dimension."""
    box = code_box(bank, width)
    spread = to_p_space(bank.styles).std(dim=0)
    return PointSpace(box=Box(low=to_p_space(box.low), high=to_p_space(box.high)), spread=spread)


def start_populations(
    bank: CandidateBank, cases: Sequence[Case], restarts: int, size: int, fitness: Fitness
) -> tuple[Tensor, Tensor]:
    """Return the best candidates of each case as populations of points, and their losses as the bank tells.

    Shapes: (C, restarts, size, w_dim) and (C, restarts, size), best first. Restart r of R has those of rank r, r + R,
    r + 2R and so on; one restart has simply the best.
    """
    labels = torch.tensor([case.label for case in cases], device=bank.scores.device)
    losses = torch.stack([fitness(bank.scores, label.expand(len(bank.scores))) for label in labels])
    best = stable_top_k(-losses, restarts * size)
    return _dealt(to_p_space(bank.styles[best.indices]), size), _dealt(-best.scores, size)


def _dealt(ranked: Tensor, size: int) -> Tensor:
    """Deal what is ranked (C, size * R, ...) out to R populations: (C, R, size, ...)."""
    dealt: Tensor = ranked.unflatten(1, (size, -1)).transpose(1, 2)
    return dealt.contiguous()
