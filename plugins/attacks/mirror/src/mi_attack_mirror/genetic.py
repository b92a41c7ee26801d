"""What MIRROR's genetic search needs beside the operators of `micore.kit.evolution`: losses, shares, populations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_attack_mirror.space import code_box
from mi_image.bank import CandidateBank
from micore.contracts import Case
from micore.kit.evolution import MemberLosses
from micore.kit.projections import Box, from_p_space, to_p_space

__all__ = ["PointSpace", "asked_surprise", "point_space", "published_share", "start_populations", "surprise"]

LEAST = 1e-12
"""A probability below this counts as this: answers may be rounded to 0, or leave a class out."""


def surprise(probabilities: Tensor) -> Tensor:
    """Return -log p of probabilities, any shape."""
    return -probabilities.clamp(min=LEAST).log()


def asked_surprise(render: Callable[[Tensor], Tensor], scores: Callable[[Tensor], Tensor]) -> MemberLosses:
    """Return the losses of points of P space: what the target's scores leave to be desired of their class."""

    def losses(points: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        answers = scores(render(from_p_space(points)))
        return surprise(answers.gather(1, rows["labels"][:, None])[:, 0])

    return losses


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


def start_populations(bank: CandidateBank, cases: Sequence[Case], restarts: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the best candidates of each case as populations of points, and their losses as the bank tells.

    Shapes: (C, restarts, size, w_dim) and (C, restarts, size), best first. Restart r of R has those of rank r, r + R,
    r + 2R and so on; one restart has simply the best.
    """
    labels = torch.tensor([case.label for case in cases], device=bank.scores.device)
    best = bank.select(restarts * size, labels)
    points = to_p_space(bank.styles[best.indices])
    return _dealt(points, size), _dealt(surprise(best.scores), size)


def _dealt(ranked: Tensor, size: int) -> Tensor:
    """Deal what is ranked (C, size * R, ...) out to R populations: (C, R, size, ...)."""
    dealt: Tensor = ranked.unflatten(1, (size, -1)).transpose(1, 2)
    return dealt.contiguous()
