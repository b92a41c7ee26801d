"""Predictions of the target: read, aligned to a class, gathered into ensembles."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mi_image.public_queries import raised
from micore.kit.selection import top_k_per_class

__all__ = ["Ensembles", "aligned", "ensembles_of_classes", "log_scores"]

LEAST_LOG = -50.0
"""Log-scores below this, and those of a score of 0, count as this."""


def log_scores(scores: Tensor) -> Tensor:
    """Return log p (N, K), not below -50."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log().clamp_min(LEAST_LOG)


def aligned(scores: Tensor, labels: Tensor, boost: float) -> Tensor:
    """Return predictions (N, K) in which the label (N,) has ``boost`` more probability, where there is room for it.

    The others share what is left, in the proportions that they have: the doubts stay. A row that is so sure already
    stays as it is. (Authors' code.)
    """
    own = scores.gather(1, labels[:, None])[:, 0]
    return raised(scores, labels, torch.where(own < 1 - boost, own + boost, own))


class Ensembles(NamedTuple):
    """For each class and reconstruction, predictions (C, draws, members, K) and their weights (C, draws, members)."""

    predictions: Tensor
    weights: Tensor


def ensembles_of_classes(scores: Tensor, labels: Tensor, draws: int, members: int, boost: float) -> Ensembles:
    """Gather the predictions, of scores (N, K), that come nearest to each class (C,), aligned to it.

    Of the draws x members best images of a class, the first goes into the first ensemble, the second into the second,
    and so on: all ensembles are about equally good. Members weigh as the aligned probability of the class; the weights
    of an ensemble sum to 1. Images come again where there are too few.
    """
    wanted = draws * members
    best = top_k_per_class(scores, min(wanted, len(scores)), labels).indices
    rows = best[:, torch.arange(wanted, device=scores.device) % best.shape[1]].flatten()
    classes = labels.repeat_interleave(wanted)
    moved = aligned(scores[rows], classes, boost)
    sure = moved.gather(1, classes[:, None]).clamp_min(torch.finfo(scores.dtype).tiny)
    predictions, weights = (
        each.view(len(labels), members, draws, -1).transpose(1, 2) for each in (moved, sure)
    )  # fmt: skip
    return Ensembles(predictions, weights[..., 0] / weights.sum(dim=2))
