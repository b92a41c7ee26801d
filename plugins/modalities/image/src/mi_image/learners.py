"""Classifiers that learn together, the same batches for all, each for itself: students and surrogates are such."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD

from mi_image.classifiers import ResNet18, SmallCnn, SmallResNet
from micore.kit.generator_training import copied
from micore.runtime import Runtime

__all__ = ["NETWORKS", "Learners", "build_networks", "learner_arguments"]

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "small-cnn": SmallCnn,
    "small-resnet": SmallResNet,
    "resnet18": ResNet18,
}
"""Architectures by name; each takes a ``width``."""


def learner_arguments(network: str, widths: Sequence[int], n_classes: int, images: Tensor) -> dict[str, Any]:
    """Return what `build_networks` needs for images (N, C, H, W), as plain data."""
    return {
        "network": network, "widths": list(widths), "n_classes": n_classes, "channels": images.shape[1],
        "size": images.shape[2],
    }  # fmt: skip


def build_networks(arguments: Mapping[str, Any], runtime: Runtime, purpose: str) -> list[nn.Module]:
    """Build a network for each width, on the device; ``purpose`` names their random numbers."""
    build, shape = NETWORKS[arguments["network"]], (arguments["channels"], arguments["size"])
    networks: list[nn.Module] = []
    for number, width in enumerate(arguments["widths"]):
        with runtime.seeded(purpose, "parameters", number):
            networks.append(runtime.place(build(arguments["n_classes"], *shape, width=width)))
    return networks


class Learners:
    """Networks, an SGD for each, and how far they are; goes on bit for bit from ``runtime.checkpoints``."""

    def __init__(
        self, networks: Sequence[nn.Module], runtime: Runtime, *, momentum: float, weight_decay: float
    ) -> None:
        self.networks, self.runtime, self.done = [network.train() for network in networks], runtime, 0
        self._optimizers = [
            SGD(network.parameters(), momentum=momentum, weight_decay=weight_decay) for network in networks
        ]

    def run(self, work: Callable[[int], None], total: int, description: str) -> None:
        """Call ``work(0)`` to ``work(total - 1)``, from where a killed training had stopped."""
        saved = self.runtime.checkpoints.load()
        if saved is not None:
            self._load(saved)
        with self.runtime.progress.track(description, total) as report:
            while self.done < total:
                work(self.done)
                self.done += 1
                report(self.done)
                self.runtime.checkpoints.offer(self._state)

    def step(self, images: Tensor, loss: Callable[[Tensor], Tensor], rate: float) -> None:
        """Take a step of each network on images (B, C, H, W); loss: of its logits (B, K); rate: of learning."""
        for network, optimizer in zip(self.networks, self._optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            with self.runtime.autocast():
                logits = network(images)
            optimizer.zero_grad(set_to_none=True)
            loss(logits.float()).backward()
            optimizer.step()

    def weights(self) -> list[dict[str, Any]]:
        """Return a copy of each network's parameters and buffers."""
        return [copied(network.state_dict()) for network in self.networks]

    def _state(self) -> dict[str, Any]:
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return {"done": self.done, "weights": self.weights(), "optimizers": optimizers}

    def _load(self, saved: Mapping[str, Any]) -> None:
        self.done = int(saved["done"])
        for network, weights in zip(self.networks, saved["weights"], strict=True):
            network.load_state_dict(weights)
        for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
