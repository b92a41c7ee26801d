"""The inverse network: from what the target answers to the embedding of what it was shown.

Sources: Ye et al., "C2FMI" (IEEE TDSC 2023) and the authors' code, for the form of the input, the network and its
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from micore.kit.generator_training import copied, moments, restore, train_generator
from micore.kit.selection import stable_top_k
from micore.runtime import Runtime

__all__ = ["InverseNetwork", "InverseSettings", "aligned", "inverse_state", "restore_inverse"]

LEAST_LOGARITHM, SHIFT = -1000.0, 50.0
"""Logarithms are at least the first, are raised by the second and then count from 0 (authors' code)."""


def aligned(scores: Tensor, kept: int) -> Tensor:
    """Return the network's input (N, K) for scores (N, K): raised logarithms of the ``kept`` best, of unit length.

    Scores of 0, such as those that a top-k answer leaves out, become 0. With ``kept`` 1 the input is the one-hot
    vector of the best class.
    """
    raised = (scores.log().clamp(min=LEAST_LOGARITHM) + SHIFT).relu()
    best = stable_top_k(raised, min(kept, scores.shape[1]))
    return functional.normalize(torch.zeros_like(raised).scatter(1, best.indices, best.scores), dim=1)


@dataclass(frozen=True, kw_only=True)
class InverseSettings:
    """What the inverse network is and how it learns: every ``decay_every`` epochs the rate falls to ``decay`` of it."""

    kept: int
    hidden: int
    dropout: float
    epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    decay_every: int


class InverseNetwork(nn.Sequential):
    """Two hidden layers from aligned scores (B, K) to embeddings (B, dims)."""

    def __init__(self, n_classes: int, dims: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(n_classes, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Dropout(dropout), nn.Linear(hidden, dims),
        )  # fmt: skip


def inverse_state(scores: Tensor, embeddings: Tensor, settings: InverseSettings, runtime: Runtime) -> Mapping[str, Any]:
    """Train the network on the target's scores (N, K) of public images and F's embeddings (N, dims) of them.

    Plain data for `restore_inverse`. Goes on from the runtime's checkpoint at the end of an epoch.
    """
    arguments = {
        "n_classes": scores.shape[1], "dims": embeddings.shape[1], "hidden": settings.hidden,
        "dropout": settings.dropout,
    }  # fmt: skip
    training = _Training(_build(arguments, runtime), aligned(scores, settings.kept), embeddings, settings, runtime)
    train_generator(training, settings.epochs, runtime, "training the inverse network", runtime.checkpoints.load())
    return {"arguments": arguments, "weights": copied(training.network.state_dict())}


def restore_inverse(state: Mapping[str, Any], runtime: Runtime) -> InverseNetwork:
    """Return the network on the device, in eval mode, without gradients."""
    network = _build(state["arguments"], runtime)
    network.load_state_dict(state["weights"])
    return network.eval().requires_grad_(False)


def _build(arguments: Mapping[str, Any], runtime: Runtime) -> InverseNetwork:
    with runtime.seeded("c2f-mi", "inverse"):
        return runtime.place(InverseNetwork(**arguments))


class _Training:
    """The inverse network's training; an iteration is an epoch (`micore.kit.generator_training.GeneratorTraining`)."""

    def __init__(
        self, network: InverseNetwork, inputs: Tensor, embeddings: Tensor, settings: InverseSettings, runtime: Runtime
    ) -> None:
        self.network, self.iteration = network.train(), 0
        self._inputs, self._embeddings, self._settings, self._runtime = inputs, embeddings, settings, runtime
        self._adam = Adam(network.parameters(), settings.learning_rate)

    def step(self) -> None:
        """Go through all images once."""
        settings = self._settings
        for group in self._adam.param_groups:
            group["lr"] = settings.learning_rate * settings.decay ** (self.iteration // settings.decay_every)
        order = self._runtime.rng("c2f-mi", "inverse", self.iteration).permutation(len(self._inputs))
        with self._runtime.seeded("c2f-mi", "dropout", self.iteration):
            for rows in order.to(self._inputs.device).split(settings.batch_size):
                loss = functional.mse_loss(self.network(self._inputs[rows]), self._embeddings[rows])
                self._adam.zero_grad(set_to_none=True)
                loss.backward()
                self._adam.step()
        self.iteration += 1

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes."""
        return {
            "iteration": self.iteration, "network": copied(self.network.state_dict()), "adam": moments(self._adam)
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.iteration = int(state["iteration"])
        self.network.load_state_dict(state["network"])
        restore(self._adam, state["adam"])
