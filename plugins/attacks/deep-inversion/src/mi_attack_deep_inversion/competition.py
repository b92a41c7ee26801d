"""The competition of adaptive DeepInversion: images on which a student still disagrees with the target.

Source: Yin et al., CVPR 2020, section 3.3 (eq. 8, 9).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["agreement", "jensen_shannon"]

TEMPERATURE = 3.0
LEAST_PROBABILITY = 0.01


def jensen_shannon(logits: Tensor, others: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence (N,) of two softmaxes (N, K) at temperature 3, in nats.

    Probabilities are clipped to [0.01, 0.99], as published; the rows then no longer sum to 1.
    """
    first, second = _softened(logits), _softened(others)
    middle = ((first + second) / 2).log()
    divergences = first * (first.log() - middle) + second * (second.log() - middle)
    return divergences.sum(dim=1) / 2


def agreement(logits: Tensor, student: Tensor, groups: int) -> Tensor:
    """Return 1 - JS, (groups,): what to pay where target (N, K) and student (N, K) agree on a group's images."""
    divergence = jensen_shannon(logits, student).view(groups, -1).mean(dim=1)
    return 1 - divergence.clamp(0, 1)


def _softened(logits: Tensor) -> Tensor:
    softened = torch.softmax(logits.float() / TEMPERATURE, dim=1)
    return softened.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
