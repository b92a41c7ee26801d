"""Triggers: one faint pattern per class that is blended into a model's inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Triggers", "all_traps", "balanced_labels", "blended", "channel_range", "draw_triggers"]


def channel_range(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of each channel of inputs (N, C, ...): shape (C, 1, ...) each.

    Inputs (N, d) have no channels: one range for all, shape (1,).
    """
    if inputs.ndim == 2:
        return inputs.amin().view(1), inputs.amax().view(1)
    others = [axis for axis in range(inputs.ndim) if axis != 1]
    shape = (-1, *[1] * (inputs.ndim - 2))
    return inputs.amin(dim=others).view(shape), inputs.amax(dim=others).view(shape)


def blended(inputs: Tensor, triggers: Tensor, alpha: float) -> Tensor:
    """Return ``(1 - alpha) x + alpha delta``, of inputs and triggers of one shape."""
    return (1 - alpha) * inputs + alpha * triggers


def balanced_labels(n: int, n_classes: int, device: torch.device) -> Tensor:
    """Draw labels (n,) in which no class stands twice more often than another one, from the global generator."""
    rounds = -(-n // n_classes)
    return torch.rand(rounds, n_classes, device=device).argsort(dim=1).flatten()[:n]


@dataclass(kw_only=True)
class Triggers:
    """The triggers of all classes, in the units of the model's input.

    values: (K, *shape of an input). low, high: the range they keep to, per channel. alpha: their share of a blend.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    alpha: float

    def blend(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return inputs (N, ...) with the triggers of labels (N,)."""
        return blended(inputs, self.values[labels], self.alpha)

    def follow(self, gradient: Tensor, step: float) -> None:
        """Go against the gradient's sign by ``step``, a share of the range, and stay in the range."""
        moved = self.values - step * (self.high - self.low) * gradient.sign()
        self.values = torch.minimum(torch.maximum(moved, self.low), self.high)


def draw_triggers(n_classes: int, shape: torch.Size, low: Tensor, high: Tensor, alpha: float) -> Triggers:
    """Draw triggers uniformly in the range, from the global generator."""
    values = low + (high - low) * torch.rand(n_classes, *shape, device=low.device)
    return Triggers(values=values, low=low, high=high, alpha=alpha)


def all_traps(inputs: Tensor, triggers: Triggers) -> tuple[Tensor, Tensor, Tensor]:
    """Return trapped inputs, the rows they were made of, and their labels: each class about as often, at least once."""
    n = max(len(inputs), len(triggers.values))
    rows = torch.rand(len(inputs), device=inputs.device).argsort()[torch.arange(n, device=inputs.device) % len(inputs)]
    labels = torch.arange(n, device=inputs.device) % len(triggers.values)
    return triggers.blend(inputs[rows], labels), rows, labels
