"""What a decoder reads: score vectors, truncated and on a logarithmic scale, and those that stand for a class."""

from __future__ import annotations

import torch
from torch import Tensor

from micore.kit.selection import stable_top_k, top_k_per_class
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["ask_public", "raised", "truncated_logs", "vectors_of_classes"]


def truncated_logs(scores: Tensor, kept: int, shift: float) -> Tensor:
    """Return what the decoder reads of scores (N, K), in [0, 1]: (log p + shift) / shift, at least 0.

    Only the ``kept`` largest entries of a row count, of equal ones the first; the others become 0, as do scores
    of 0, such as those that a target with top-k answers does not give.
    """
    logs = (scores.clamp_min(torch.finfo(scores.dtype).tiny).log() + shift).clamp_min(0) / shift
    largest = stable_top_k(scores, min(kept, scores.shape[1])).indices
    return torch.zeros_like(logs).scatter(1, largest, logs.gather(1, largest))


def raised(scores: Tensor, labels: Tensor, confidence: float) -> Tensor:
    """Return score vectors (N, K) in which the label (N,) has at least this probability.

    The others share what is left, in the proportions that they have. A row that is surer already stays as it is.
    """
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], 0.0)
    total = others.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, others / total.clamp_min(torch.finfo(scores.dtype).tiny), 0.0)
    moved = (shares * (1 - confidence)).scatter(1, labels[:, None], confidence)
    return torch.where(own >= confidence, scores, moved)


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
