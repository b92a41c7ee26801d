"""Classification losses that keep one value per row.

Every function takes ``logits`` (B, K) and ``labels`` (B,) and returns a vector (B,): lower means that the
row looks more like its label. Sum it before differentiating. A mean would make one case's step depend on
how many other cases happened to share its batch.

Half-precision logits are computed in float32, because exponentials, margins of raw logits and the
hyperbolic distance all overflow or lose their argument in sixteen bits. Float64 stays float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "LOSSES",
    "RowLoss",
    "cross_entropy",
    "label_smoothed",
    "max_margin",
    "negative_logit",
    "poincare",
    "top_k_margin",
]

LOWEST_LOG_PROBABILITY = -50.0
LOWEST_COSH = 1.0 + 1e-7  # the derivative of arcosh is infinite at 1


class RowLoss(Protocol):
    """A loss with one value per row: logits (B, K) and integer labels (B,) to a vector (B,)."""

    def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor:
        """Return one value per row, (B,)."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``-log softmax(l)_y``, (B,), never negative."""
    logits, labels = _checked(logits, labels)
    return functional.cross_entropy(logits, labels, reduction="none")


def negative_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``-l_y``, (B,): the likelihood loss without its normaliser.

    It is unbounded below, so it needs a prior or a feature penalty beside it. Source: Nguyen et al.,
    "Re-thinking Model Inversion Attacks Against Deep Neural Networks" (CVPR 2023).
    """
    logits, labels = _checked(logits, labels)
    return -_own_logit(logits, labels)


def max_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``max_{j != y} l_j - l_y``, (B,): negative exactly where the label is the only winner.

    Source: Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional GAN" (AAAI 2023). The
    two largest logits are enough; with a tie at the top the margin is zero whichever of the tied classes
    comes first.
    """
    logits, labels = _checked(logits, labels, least_classes=2)
    values, winners = logits.topk(2, dim=1)
    rival = torch.where(winners[:, 0] == labels, values[:, 1], values[:, 0])
    return rival - _own_logit(logits, labels)


def top_k_margin(logits: Tensor, labels: Tensor, *, k: int = 20) -> Tensor:
    """Return ``mean(the k largest of l_j, j != y) - l_y``, (B,).

    With fewer than ``k`` other classes all of them count, so that one setting serves small and large
    targets; ``k=1`` is :func:`max_margin`. Source: Li et al., "Model Inversion Attacks Through
    Target-Specific Conditional Diffusion Models" (arXiv 2407.11424), which uses k = 20.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    logits, labels = _checked(logits, labels, least_classes=2)
    others = logits.scatter(1, labels[:, None], -math.inf)
    rivals = others.topk(min(k, logits.shape[1] - 1), dim=1).values
    return rivals.mean(dim=1) - _own_logit(logits, labels)


def poincare(logits: Tensor, labels: Tensor, *, margin: float = 1e-4, epsilon: float = 1e-9) -> Tensor:
    """Return the hyperbolic distance between the logits' direction and the label, (B,).

    ``u = l / ||l||_1``, ``v = max(onehot(y) - margin, 0)`` and
    ``d = arcosh(1 + 2 ||u - v||^2 / ((1 - ||u||^2)(1 - ||v||^2) + epsilon))``.

    Source: Struppek et al., "Plug & Play Attacks" (ICML 2022), where u is made of raw logits and ``margin``
    is 1e-4. ``epsilon`` is ours: it keeps the distance finite for one-hot logits, which lie on the rim of
    the ball. The argument of arcosh is kept above 1 for the same reason.
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin must lie strictly between 0 and 1, got {margin}")
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    logits, labels = _checked(logits, labels)
    length = logits.abs().sum(dim=1, keepdim=True)
    u = logits / length.clamp(min=torch.finfo(logits.dtype).tiny)
    v = torch.zeros_like(u).scatter(1, labels[:, None], 1 - margin)
    room = (1 - u.square().sum(dim=1)).clamp(min=0) * (1 - (1 - margin) ** 2)
    cosh = 1 + 2 * (u - v).square().sum(dim=1) / (room + epsilon)
    return torch.acosh(cosh.clamp(min=LOWEST_COSH))


def label_smoothed(logits: Tensor, labels: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Return ``(1 - s) (-log p_y) + s mean_j(-log p_j)``, (B,), where the smoothing ``s`` may be negative.

    Negative smoothing is a training-time defense: Struppek et al., "Be Careful What You Smooth For" (ICLR
    2024), with s about -0.05. It has no lower bound: it keeps falling as the model grows surer. In the mean,
    log-probabilities are therefore clamped at -50, below which a class that is ruled out lowers the loss no
    more; the label's own term is never clamped, so a misjudged sample always has a gradient.
    """
    if not (math.isfinite(smoothing) and smoothing <= 1):
        raise ValueError(f"smoothing must be a number of at most 1, got {smoothing}")
    logits, labels = _checked(logits, labels)
    surprise = -functional.log_softmax(logits, dim=1)
    spread = surprise.clamp(max=-LOWEST_LOG_PROBABILITY).mean(dim=1)
    return (1 - smoothing) * _own_logit(surprise, labels) + smoothing * spread


LOSSES: Mapping[str, RowLoss] = MappingProxyType(
    {
        "cross_entropy": cross_entropy,
        "negative_logit": negative_logit,
        "max_margin": max_margin,
        "top_k_margin": top_k_margin,
        "poincare": poincare,
        "label_smoothed": label_smoothed,
    }
)
"""Losses by the name that a configuration uses, each with its default parameters. Read-only."""


def _own_logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _checked(logits: Tensor, labels: Tensor, *, least_classes: int = 1) -> tuple[Tensor, Tensor]:
    """Check shapes and types (never values: that would wait for the accelerator) and widen half precision."""
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(f"logits must be floating point (B, K), got {logits.dtype} {tuple(logits.shape)}")
    if labels.ndim != 1 or len(labels) != len(logits):
        raise ValueError(f"labels must be ({len(logits)},) to match the logits, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integer class indices, got {labels.dtype}")
    if logits.shape[1] < least_classes:
        raise ValueError(f"a margin needs at least {least_classes} classes, got {logits.shape[1]}")
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), labels.long()
