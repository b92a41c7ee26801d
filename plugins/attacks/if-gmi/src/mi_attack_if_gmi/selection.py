"""Which stage's pictures are reported: those that the target itself recognises best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.kit.search import Found, RowStatus

__all__ = ["StageResult", "best_stage"]


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage left of each row.

    styles (N, w_dim), images (N, C, S, S); scores (N,): the target's mean confidence, 0 where nobody looked or
    nothing is finite; scored: whether the budget let the target look at all of them.
    """

    found: Found
    styles: Tensor
    images: Tensor
    scores: Tensor
    scored: bool

    @property
    def complete(self) -> bool:
        """Whether the budget let this stage end."""
        return self.found.complete and self.scored


def best_stage(results: Sequence[StageResult], n_cases: int) -> tuple[StageResult, Tensor]:
    """Return, of each case, all rows as its best stage left them; also the number of that stage (n_cases,).

    The best stage of a case has the highest mean score over its rows, the earliest of equal ones. What it leaves counts
    as unfinished when the budget ended any stage.
    """
    scores = torch.stack([result.scores for result in results])
    stages = scores.unflatten(1, (n_cases, -1)).mean(dim=2).argmax(dim=0)
    chosen = stages.repeat_interleave(scores.shape[1] // n_cases)
    styles = _picked([result.styles for result in results], chosen)
    best = StageResult(
        found=_merged(results, chosen, styles), styles=styles,
        images=_picked([result.images for result in results], chosen),
        scores=_picked([result.scores for result in results], chosen), scored=results[-1].scored,
    )  # fmt: skip
    return best, stages


def _picked(values: Sequence[Tensor], chosen: Tensor) -> Tensor:
    """Return, of each row, what its chosen stage left: S tensors (N, ...) to one."""
    return torch.stack(list(values))[chosen, torch.arange(len(chosen), device=chosen.device)]


def _merged(results: Sequence[StageResult], chosen: Tensor, styles: Tensor) -> Found:
    """Return how the rows ended: each in its chosen stage, and none done if the budget ended the last one."""
    found = [result.found for result in results]
    statuses = [found[stage].statuses[row] for row, stage in enumerate(chosen.tolist())]
    if not found[-1].complete:
        statuses = [_unfinished(status, first=len(found) == 1) for status in statuses]
    return Found(
        values=styles, losses=_picked([item.losses for item in found], chosen),
        steps=torch.stack([item.steps for item in found]).sum(dim=0), statuses=tuple(statuses),
        history=torch.cat([item.history for item in found], dim=1),
    )  # fmt: skip


def _unfinished(status: RowStatus, *, first: bool) -> RowStatus:
    """Return the status of a row in a search that the budget ended; after the first stage every row has something."""
    begun = not (first and status is RowStatus.WAITING)
    return RowStatus.STOPPED if begun and status is not RowStatus.FAILED else status
