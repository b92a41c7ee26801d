"""What trainings of all adversarial networks share: steps on one network, drawn data, states to go on from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam

from micore.runtime import Runtime

__all__ = [
    "GeneratorTraining", "Source", "as_float", "copied", "descend", "draw_samples", "frozen_copy", "moments", "restore",
    "train_generator",
]  # fmt: skip


class Source(Protocol):
    """What training needs of a random source; `micore.runtime.Random` has it."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return float32 numbers ~ N(0, 1)."""
        ...

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Return float32 numbers in [0, 1)."""
        ...

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Return int64 numbers in [0, high)."""
        ...

    def state(self) -> Tensor:
        """Return where the stream is."""
        ...

    def load(self, state: Tensor) -> None:
        """Continue the stream from there."""
        ...


class GeneratorTraining(Protocol):
    """A training that goes step by step, from any state it once had."""

    iteration: int

    def step(self) -> Any:
        """Take one step of the generator with all that belongs to it."""
        ...

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        ...


def train_generator(
    training: GeneratorTraining,
    iterations: int,
    runtime: Runtime,
    description: str,
    saved: dict[str, Any] | None = None,
) -> None:
    """Train to ``iterations`` generator steps in all, from a ``saved`` state if there is one.

    The state is offered as a checkpoint at each step; the caller loads it (``runtime.checkpoints.load()``),
    once, because loading also takes over what the adversary had spent.
    """
    if saved is not None:
        training.load(saved)
    with runtime.progress.track(description, iterations) as report:
        while training.iteration < iterations:
            training.step()
            report(training.iteration)
            runtime.checkpoints.offer(training.state)


def descend(adam: Adam, network: nn.Module, loss: Tensor) -> None:
    """Take one step on `network` alone: the other networks' parameters get no gradient."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    adam.step()


def draw_samples(samples: Tensor, n: int, rng: Source) -> Tensor:
    """Draw n of samples (N, ...) uniformly with replacement, as float; uint8 is converted to [0, 1]."""
    return as_float(samples[rng.integers(len(samples), (n,))])


def as_float(samples: Tensor) -> Tensor:
    """Return samples as numbers: bytes are divided by 255, anything else is left as it is."""
    return samples.float() / 255 if samples.dtype == torch.uint8 else samples


def frozen_copy(network: nn.Module) -> nn.Module:
    """Return a copy to attack with, in eval mode and without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that later steps do not change."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moments(adam: Adam) -> dict[str, dict[str, Tensor]]:
    """Return a copy of what Adam remembers, under names that can be stored."""
    return {str(index): copied(entry) for index, entry in adam.state_dict()["state"].items()}


def restore(adam: Adam, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give Adam back what `moments` returned."""
    state = {int(index): copied(entry) for index, entry in saved.items()}
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
