"""Optimisers that treat every row of a batch on its own.

A search over many rows (case x restart) replaces rows that are done by rows that wait, so the rows of one
batch are at different steps. Each has its own moments and its own step number here, and none influences
another. An optimiser is a frozen description; its state is a tuple of tensors shaped like the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["NesterovMomentum", "RowAdam", "RowAdamax", "RowOptimizer", "Schedule", "State", "ramp_up_and_down"]

State = tuple[Tensor, ...]
Schedule = Callable[[Tensor], Tensor]
"""From steps (B,), counted from 1, to factors (B,) of the learning rate."""


class RowOptimizer(Protocol):
    """What a search needs of an optimiser."""

    def start(self, values: Tensor) -> State:
        """Return the state of rows (B, ...) that have not moved yet."""

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Return the next values and state of rows that are at ``steps`` (B,), counted from 1, float."""


@dataclass(frozen=True, kw_only=True)
class RowAdam:
    """Adam (Kingma & Ba, ICLR 2015) with bias correction by each row's own step."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    schedule: Schedule | None = None

    def start(self, values: Tensor) -> State:
        """Return zero moments."""
        return torch.zeros_like(values), torch.zeros_like(values)

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step (algorithm 1 of the paper)."""
        first, second = self.betas
        mean = torch.lerp(gradients, state[0], first)
        square = torch.lerp(gradients.square(), state[1], second)
        rate = self.learning_rate * (self.schedule(steps) if self.schedule else torch.ones_like(steps))
        size = _per_row(rate / (1 - first**steps), values)
        spread = (square / _per_row(1 - second**steps, values)).sqrt()
        return values - size * mean / (spread + self.epsilon), (mean, square)


@dataclass(frozen=True, kw_only=True)
class RowAdamax:
    """Adamax (Kingma & Ba, ICLR 2015, section 7.1): Adam with the infinity norm, each row by its own step."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def start(self, values: Tensor) -> State:
        """Return zero moments."""
        return torch.zeros_like(values), torch.zeros_like(values)

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step (algorithm 2 of the paper, with torch's epsilon)."""
        first, second = self.betas
        mean = torch.lerp(gradients, state[0], first)
        largest = torch.maximum(second * state[1], gradients.abs() + self.epsilon)
        size = _per_row(self.learning_rate / (1 - first**steps), values)
        return values - size * mean / largest, (mean, largest)


@dataclass(frozen=True, kw_only=True)
class NesterovMomentum:
    """The update of GMI (Zhang et al., CVPR 2020, authors' code): Nesterov-like, with the gradient at the point itself.

    v' = m v - a g; value += (1 + m) v' - m v.
    """

    learning_rate: float
    momentum: float = 0.9

    def start(self, values: Tensor) -> State:
        """Return a velocity of zero."""
        return (torch.zeros_like(values),)

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step."""
        (before,) = state
        velocity = self.momentum * before - self.learning_rate * gradients
        return values + (1 + self.momentum) * velocity - self.momentum * before, (velocity,)


def ramp_up_and_down(total: int, *, rise: float = 0.05, fall: float = 0.25) -> Schedule:
    """Return StyleGAN's schedule of projections: linear over the first ``rise`` of all steps, cosine over the last.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020), appendix D.
    """
    if total < 1:
        raise ValueError(f"a schedule needs at least one step, got {total}")

    def factors(steps: Tensor) -> Tensor:
        done = (steps - 1) / total
        down = ((1 - done) / fall).clamp(max=1) if fall else torch.ones_like(done)
        up = (steps / (total * rise)).clamp(max=1) if rise else torch.ones_like(done)
        return (0.5 - 0.5 * torch.cos(down * math.pi)) * up

    return factors


def _per_row(factors: Tensor, values: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (values.ndim - 1))
