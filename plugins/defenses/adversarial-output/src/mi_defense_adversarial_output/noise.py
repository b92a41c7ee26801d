"""The search for the answer that misleads a mimic most: within a budget, with the label kept, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mi_defense_adversarial_output.mimic import log_scores

SOFTNESS = 0.01


def reconstruction_error(found: Tensor, samples: Tensor) -> Tensor:
    """Return the mean squared error of each row, (N,)."""
    return (found - samples).flatten(1).square().mean(dim=1)


def soft_sign(gradient: Tensor) -> Tensor:
    """Return ``g / (|g| + 0.01 max|g|)`` of rows (N, K): the sign, but for entries that are nearly 0.

    The plain sign would turn the rounding of such entries, which differs with the size of a batch, into full steps.
    """
    size = gradient.abs()
    tiny = torch.finfo(gradient.dtype).tiny
    return gradient / (size + SOFTNESS * size.amax(dim=1, keepdim=True)).clamp(min=tiny)


def leading(logits: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return logits (N, K) in which each label (N,) leads all other classes by at least ``margin``."""
    label = labels[:, None]
    rivals = logits.scatter(1, label, -math.inf).amax(dim=1, keepdim=True)
    return logits.scatter(1, label, torch.maximum(logits.gather(1, label), rivals + margin))


def within_budget(moved: Tensor, scores: Tensor, budget: float) -> Tensor:
    """Return ``moved`` (N, K) with its largest changes cut down, so that ``scores`` are at most ``budget`` away in L1.

    What rises and what falls is cut to half the budget each, and the sum stays 1. Each score ends between the given
    and the moved one; the first class of both stays the first. Small scores, whose logarithms tell most, keep their
    change, which a projection on an L1 ball would take first.
    """
    change = moved - scores
    rises, falls = (_cut(part, budget / 2) for part in (change.clamp(min=0), (-change).clamp(min=0)))
    return scores + rises - falls


def _cut(values: Tensor, total: float) -> Tensor:
    """Return ``min(v, c)`` of rows (N, K) that are not negative, with the largest c whose row sums stay in ``total``.

    For every m, the sum is at most that of the m smallest values plus (K - m) c; at the right m it is equal. So c is
    the largest of ``(total - sum of the m smallest) / (K - m)``.
    """
    ordered, n = values.sort(dim=1).values, values.shape[1]
    smaller = ordered.cumsum(dim=1) - ordered
    left = torch.arange(n, 0, -1, device=values.device)
    level = ((total - smaller) / left).amax(dim=1, keepdim=True)
    fits = values.sum(dim=1, keepdim=True) <= total
    return torch.where(fits, values, torch.minimum(values, level))


def misleading(
    mimic: Callable[[Tensor], Tensor], scores: Tensor, samples: Tensor, *, steps: int, step_size: float,
    budget: float, margin: float,
) -> Tensor:  # fmt: skip
    """Return scores (N, K) near those given that raise the mimic's error on these (pooled) samples.

    mimic: log-scores (N, K) to samples. Each row depends on itself alone, and nothing is drawn.
    """
    labels, given = scores.argmax(dim=1), scores.float()
    found = given
    for _ in range(steps):
        logits = log_scores(found)
        logits = leading(logits + step_size * soft_sign(_ascent(mimic, logits, samples)), labels, margin)
        found = within_budget(logits.softmax(dim=1), given, budget)
    kept = found.argmax(dim=1) == labels
    return torch.where(kept[:, None], found, given)


def _ascent(mimic: Callable[[Tensor], Tensor], logits: Tensor, samples: Tensor) -> Tensor:
    """Return the gradient of each row's error in its logits, (N, K); answers are given with gradients off."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        error = reconstruction_error(mimic(leaf.log_softmax(dim=1)), samples).sum()
        gradient: Tensor = torch.autograd.grad(error, leaf)[0]
    return gradient
