"""What a decoder reads: score vectors, truncated and on a logarithmic scale, and those that stand for a class."""

from __future__ import annotations

import torch
from torch import Tensor

from mi_image.public_queries import raised
from micore.kit.selection import stable_top_k, top_k_per_class

__all__ = ["truncated_logs", "vectors_of_classes"]


def truncated_logs(scores: Tensor, kept: int, shift: float) -> Tensor:
    """Return what the decoder reads of scores (N, K), in [0, 1]: (log p + shift) / shift, at least 0.

    Only the ``kept`` largest entries of a row count, of equal ones the first; the others become 0, as do scores
    of 0, such as those that a target with top-k answers does not give.
    """
    logs = (scores.clamp_min(torch.finfo(scores.dtype).tiny).log() + shift).clamp_min(0) / shift
    largest = stable_top_k(scores, min(kept, scores.shape[1])).indices
    return torch.zeros_like(logs).scatter(1, largest, logs.gather(1, largest))


def vectors_of_classes(scores: Tensor, labels: Tensor, draws: int, confidence: float) -> Tensor:
    """Return vectors (C, draws, K) that stand for classes (C,), from the target's scores (N, K) of public images.

    For each class the vectors of the ``draws`` public images that the target takes for it with the largest
    probability, raised to this confidence: what the target would say of an image of the class itself, with the doubts
    that it has of public images on that side. The same vectors come again where there are fewer images than draws.
    """
    best = top_k_per_class(scores, min(draws, len(scores)), labels).indices
    rows = best[:, torch.arange(draws, device=best.device) % best.shape[1]].flatten()
    chosen = raised(scores[rows], labels.repeat_interleave(draws), confidence)
    return chosen.unflatten(0, (len(labels), draws))
