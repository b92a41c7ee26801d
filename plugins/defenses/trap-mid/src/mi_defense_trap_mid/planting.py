"""Planting the triggers: the discriminator that keeps them hidden, and the steps that make them work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_trap_mid.triggers import Triggers, blended
from micore.kit.features import last_linear
from micore.kit.layers import replace_layer
from micore.kit.training import TrainingConfig

__all__ = ["Planting", "discriminator_of", "in_eval"]


class Planting:
    """The triggers with the network that tells them from clean samples, and its optimiser.

    The network is of the classifier's own architecture, with one logit: positive for clean.
    """

    def __init__(self, classifier: nn.Module, triggers: Triggers, config: TrainingConfig) -> None:
        self.triggers = triggers
        self.steps = 0
        self.network = discriminator_of(classifier)
        self.optimizer = _optimizer(self.network, config)

    def train_discriminator(self, clean: Tensor, labels: Tensor) -> None:
        """Take one step of the discriminator on clean inputs (N, ...) and the same ones trapped."""
        wanted = torch.cat([clean.new_ones(len(clean)), clean.new_zeros(len(clean))])
        found = self.network.train()(torch.cat([clean, self.triggers.blend(clean, labels)]))
        loss = functional.binary_cross_entropy_with_logits(found.float().flatten(), wanted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        torch.clear_autocast_cache()  # it may hold the weights as they were before the step

    def move_triggers(
        self, classifier: nn.Module, clean: Tensor, labels: Tensor, step: float, view: Callable[[Tensor], Tensor]
    ) -> None:
        """Move the triggers of ``labels`` (N,) so that they look clean and are taken for their classes."""
        leaf = self.triggers.values.detach().requires_grad_(True)
        with in_eval(classifier, self.network):
            trapped = blended(clean, leaf[labels], self.triggers.alpha)
            looks = self.network(trapped).float().flatten()
            loss = functional.binary_cross_entropy_with_logits(looks, torch.ones_like(looks))
            loss = loss + functional.cross_entropy(classifier(view(trapped)).float(), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
        self.triggers.follow(gradient, step)

    def state(self) -> dict[str, Any]:
        """Return what a training that goes on needs."""
        return {
            "triggers": self.triggers.values, "steps": self.steps,
            "discriminator": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.triggers.values = state["triggers"].to(self.triggers.low.device)
        self.steps = int(state["steps"])
        self.network.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])


def discriminator_of(classifier: nn.Module) -> nn.Module:
    """Return a copy of a classifier whose last linear layer gives one logit, 0 to begin with.

    Raises: ModelError for a network without a linear layer.
    """
    network = copy.deepcopy(classifier).requires_grad_(True)
    old = last_linear(network)
    head = copy.copy(old)  # a layer of its own, of the old one's type and device; nothing is drawn
    head._parameters = {
        name: None if value is None else nn.Parameter(torch.zeros_like(value[:1]))
        for name, value in old._parameters.items()
    }
    head.out_features = 1
    return replace_layer(network, old, head)


@contextmanager
def in_eval(*networks: nn.Module) -> Iterator[None]:
    """Put networks in eval mode inside the block, and each of their parts back in the mode that it had."""
    modes = [(part, part.training) for network in networks for part in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return an optimiser of the classifier's kind and numbers, over the discriminator alone."""
    if config.optimizer == "adam":
        return torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        network.parameters(), config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )  # fmt: skip
