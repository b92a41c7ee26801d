"""Move scores towards a goal within an L1 budget, so that their divergence from it falls the furthest."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["filled", "levels"]


def filled(scores: Tensor, goals: Tensor, budgets: Tensor) -> Tensor:
    """Return the rows nearest to the goals within L1 distance ``budgets`` (N,) of the scores.

    scores, goals: (N, K), rows that add up to 1, goals above 0. Nearest: of the least ``KL(q || goal)``. With a
    multiplier for the distance, the conditions of the optimum are ``q_i = low goal_i`` where q rose, ``high goal_i``
    where it fell, and ``low goal_i <= p_i <= high goal_i`` where it stayed, so ``q = clip(p, low goal, high goal)``:
    small ratios are filled up to one level, large ones cut down to another. The same holds for ``KL(goal || q)`` and
    every other f-divergence, so it does not matter which is meant. A budget that reaches the goal gives the goal.
    """
    gap = (scores - goals).abs().sum(dim=1)
    low, high = levels(scores, goals, budgets / 2)
    moved = torch.minimum(torch.maximum(scores, low[:, None] * goals), high[:, None] * goals)
    return torch.where((budgets >= gap)[:, None], goals, moved)


def levels(scores: Tensor, goals: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels (N,) of ``scores / goals`` between which mass is moved from above to below: ``masses`` (N,).

    What filling up to ``a`` takes is the largest of ``a M_j - P_j`` over j, where ``M_j``, ``P_j`` are the sums of
    goals and scores over the j smallest ratios. So the level for a mass is the least ``(mass + P_j) / M_j``; from
    above likewise.
    """
    order = (scores / goals).argsort(dim=1, stable=True)
    scores, goals = scores.gather(1, order), goals.gather(1, order)
    low = ((masses[:, None] + scores.cumsum(dim=1)) / goals.cumsum(dim=1)).amin(dim=1)
    scores, goals = scores.flip(1), goals.flip(1)
    high = ((scores.cumsum(dim=1) - masses[:, None]) / goals.cumsum(dim=1)).amax(dim=1)
    return low, high
