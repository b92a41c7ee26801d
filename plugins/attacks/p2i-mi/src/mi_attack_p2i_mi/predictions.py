"""Predictions of the target: asked for, raised to a class, gathered into ensembles."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from micore.kit.selection import top_k_per_class
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["Ensembles", "aligned", "ask_public", "ensembles_of_classes", "log_scores"]

LEAST_LOG = -50.0
"""Log-scores below this, and those of a score of 0, count as this."""


def log_scores(scores: Tensor) -> Tensor:
    """Return log p (N, K), not below -50."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log().clamp_min(LEAST_LOG)


def aligned(scores: Tensor, labels: Tensor, confidence: float) -> Tensor:
    """Return predictions (N, K) in which the label (N,) has at least this probability.

    The others share what is left, in the proportions that they have: the doubts stay, the class is that under attack. A
    row that is surer already stays as it is.
    """
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], 0.0)
    shares = others / others.sum(dim=1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    moved = (shares * (1 - confidence)).scatter(1, labels[:, None], confidence)
    return torch.where(own >= confidence, scores, moved)


class Ensembles(NamedTuple):
    """For each class and reconstruction, predictions (C, draws, members, K) and their weights (C, draws, members)."""

    predictions: Tensor
    weights: Tensor


def ensembles_of_classes(scores: Tensor, labels: Tensor, draws: int, members: int, confidence: float) -> Ensembles:
    """Gather the predictions, of scores (N, K), that come nearest to each class (C,), aligned to it.

    Of the draws x members best samples of a class, the first goes into the first ensemble, the second into the second,
    and so on: all ensembles are about equally good. Members weigh as the target's probability of the class; the weights
    of an ensemble sum to 1. Samples come again where there are too few.
    """
    wanted = draws * members
    best = top_k_per_class(scores, min(wanted, len(scores)), labels)
    places = torch.arange(wanted, device=scores.device) % best.indices.shape[1]
    rows, sure = best.indices[:, places], best.scores[:, places].clamp_min(torch.finfo(scores.dtype).tiny)
    moved = aligned(scores[rows.flatten()], labels.repeat_interleave(wanted), confidence)
    predictions = moved.view(len(labels), members, draws, -1).transpose(1, 2)
    weights = sure.view(len(labels), members, draws).transpose(1, 2)
    return Ensembles(predictions, weights / weights.sum(dim=2, keepdim=True))


@torch.no_grad()
def ask_public(target: Target, images: Tensor, runtime: Runtime) -> Tensor:
    """Return the target's scores (N, K) of public images (N, C, H, W), one query each.

    They are asked for ``runtime.tile`` at a time; a killed work goes on from its checkpoint.
    """
    saved = runtime.checkpoints.load()
    parts = [saved["scores"].to(images.device)] if saved else []
    done = sum(len(part) for part in parts)
    with runtime.progress.track("asking the target about public images", len(images)) as report:
        for start in range(done, len(images), runtime.tile):
            parts.append(target.scores(images[start : start + runtime.tile]))
            report(start + len(parts[-1]))
            runtime.checkpoints.offer(lambda: {"scores": torch.cat(parts)})
    return torch.cat(parts)
