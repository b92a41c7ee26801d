"""Small networks of many agents side by side, each with its own parameters, run in one batched product per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from micore.runtime import Random

__all__ = ["StackedMlp"]


@dataclass(frozen=True)
class StackedMlp:
    """N perceptrons of one shape with ReLU between layers; no number of one enters another.

    weights: (N, inputs, outputs) of each layer; biases: (N, 1, outputs).
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def draw(cls, streams: Sequence[Random], sizes: Sequence[int]) -> StackedMlp:
        """Draw one network from each stream, uniform within 1 / sqrt(inputs) as torch's linear layers.

        sizes: units of the input, of each hidden layer and of the output.
        """
        weights, biases = [], []
        for inputs, outputs in pairwise(sizes):
            drawn = torch.stack([stream.uniform((inputs + 1, outputs)) for stream in streams])
            scaled = (2 * drawn - 1) / math.sqrt(inputs)
            weights.append(scaled[:, :-1].contiguous().requires_grad_(True))
            biases.append(scaled[:, -1:].contiguous().requires_grad_(True))
        return cls(weights, biases)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (N, B, inputs) to (N, B, outputs)."""
        values = inputs
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values.relu() if index else values, weight)
        return values

    @property
    def parameters(self) -> list[Tensor]:
        """All tensors that are learned."""
        return [*self.weights, *self.biases]

    def frozen_copy(self) -> StackedMlp:
        """Return a copy without gradients, such as the slow critics."""
        return StackedMlp([w.detach().clone() for w in self.weights], [b.detach().clone() for b in self.biases])

    @torch.no_grad()
    def follow(self, other: StackedMlp, share: float) -> None:
        """Move every parameter by this share of the way to another's (Polyak averaging)."""
        for own, leading in zip(self.parameters, other.parameters, strict=True):
            own.lerp_(leading, share)
