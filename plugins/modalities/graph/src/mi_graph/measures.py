"""How well scores of pairs tell edges from others; weights say how often each pair counts, for bootstraps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """Pairs in falling order of their scores, those of equal score as one group.

    is_edge: bool (p,), in this order; order: where each stood; ends: one past the last of each group.
    """

    is_edge: Tensor
    order: Tensor
    ends: Tensor

    @classmethod
    def of(cls, scores: Tensor, is_edge: Tensor) -> Ranking:
        """Rank pairs by scores (p,); is_edge: bool (p,)."""
        order = scores.argsort(descending=True, stable=True)
        ranked = scores[order]
        last = torch.ones(len(ranked), dtype=torch.bool)
        last[:-1] = ranked[:-1] != ranked[1:]
        return cls(is_edge[order], order, last.nonzero().flatten() + 1)

    def _counts(self, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return how many edges and others there are up to the end of each group."""
        last = self.ends - 1
        if weights is None:
            hits = self.is_edge.cumsum(0)[last]
            return hits.double(), (self.ends - hits).double()
        weight = weights[self.order].double()
        hits, all_pairs = (self.is_edge * weight).cumsum(0), weight.cumsum(0)
        return hits[last], (all_pairs - hits)[last]

    def auc(self, weights: Tensor | None = None) -> float:
        """Return the chance that an edge ranks before another pair, ties as half; 0.5 where one of both is missing."""
        hits, misses = self._counts(weights)
        if not hits[-1] or not misses[-1]:
            return 0.5
        before = torch.cat([hits.new_zeros(1), hits[:-1]])
        steps = misses.diff(prepend=misses.new_zeros(1))
        return float((steps * (hits + before) / 2).sum() / (hits[-1] * misses[-1]))

    def average_precision(self, weights: Tensor | None = None) -> float:
        """Return the mean precision at each edge; of equal scores all are taken at once."""
        hits, misses = self._counts(weights)
        if not hits[-1]:
            return 0.0
        gained = hits.diff(prepend=hits.new_zeros(1))
        return float((gained * hits / (hits + misses).clamp(min=1e-12)).sum() / hits[-1])

    def precision_at(self, k: int) -> float:
        """Return the share of edges among the first k pairs; of a group that is cut, its own share."""
        hits, misses = self._counts(None)
        seen = hits + misses
        group = int(torch.searchsorted(seen, torch.tensor(float(k), dtype=seen.dtype)))
        group = min(group, len(seen) - 1)
        before = (hits[group - 1], seen[group - 1]) if group else (hits.new_zeros(()), seen.new_zeros(()))
        part = (k - before[1]) / (seen[group] - before[1])
        return float((before[0] + part * (hits[group] - before[0])) / k)


def auc(scores: Tensor, is_edge: Tensor) -> float:
    """Return the area under the ROC curve of scores (p,) for edges, bool (p,)."""
    return Ranking.of(scores, is_edge).auc()
