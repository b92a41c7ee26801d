"""Gradient descent whose points are processed: x_i = Process(x_{i-1} - lambda grad c(x_{i-1})), algorithm 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.kit.row_optimizers import State

__all__ = ["ProcessedDescent"]


@dataclass(frozen=True, kw_only=True)
class ProcessedDescent:
    """A `micore.kit.row_optimizers.RowOptimizer` without memory.

    process: images (B, C, H, W) to images, each for itself, after every ``every``-th step of a row; None: never.
    """

    learning_rate: float
    process: Callable[[Tensor], Tensor] | None = None
    every: int = 1

    def start(self, values: Tensor) -> State:
        """Return an empty state."""
        return ()

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step."""
        moved = values - self.learning_rate * gradients
        if self.process is None:
            return moved, state
        due = (steps % self.every == 0).view(-1, *[1] * (values.ndim - 1))
        return torch.where(due, self.process(moved), moved), state
