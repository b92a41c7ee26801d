"""Surrogates of a target that gives labels only: classifiers trained on generated images with its labels of them.

Source: Nguyen, Chandrasegaran, Abdollahzadeh, Cheung: "Label-Only Model Inversion Attacks via Knowledge Transfer"
(LOKT, NeurIPS 2023), section 4.2, and the authors' released training script.

Fidelity notes (paper / authors' code / here)
- The authors train DenseNet-121, -161 and -169 from scratch. Here networks of `mi_image.students` in different
  widths, so that no further package is needed.
- Loss, optimiser and schedule are theirs: half the cross-entropy of the images and half that of random views of them,
  SGD with momentum, a cosine to 0. 200 of their epochs of 30,000 images in batches of 256 are 23,400 steps.
- Images are drawn uniformly with replacement; image and view pass the network in one batch.
- All surrogates are trained in one loop over the same batches, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from mi_image.augment import Augmentation
from mi_image.gan_steps import as_float, copied
from mi_image.students import NETWORKS
from micore.runtime import Runtime

__all__ = ["SurrogateSettings", "surrogate_states"]


@dataclass(frozen=True, kw_only=True)
class SurrogateSettings:
    """Which surrogates, and how they learn; the numbers of the training are the authors' code.

    network: a name in `mi_image.students.NETWORKS`; widths: one surrogate for each.
    """

    network: str = "resnet18"
    widths: tuple[int, ...] = (48, 64, 80)
    steps: int = 23_400
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


def surrogate_states(
    images: Tensor, labels: Tensor, n_classes: int, views: Augmentation, settings: SurrogateSettings, runtime: Runtime
) -> Mapping[str, Any]:
    """Train all surrogates; return plain data for `mi_image.students.restore_students`.

    images: (N, C, H, W), float in [0, 1] or uint8; labels: (N,), the target's; both on the runtime's device. Resumes
    bit for bit from ``runtime.checkpoints``.
    """
    arguments = {
        "network": settings.network, "widths": list(settings.widths), "n_classes": n_classes,
        "channels": images.shape[1], "size": images.shape[2],
    }  # fmt: skip
    training = _Training(_networks(arguments, runtime), images, labels, views, settings, runtime)
    training.run()
    return {"arguments": arguments, "weights": [copied(network.state_dict()) for network in training.networks]}


def _networks(arguments: Mapping[str, Any], runtime: Runtime) -> list[nn.Module]:
    networks: list[nn.Module] = []
    for number, width in enumerate(arguments["widths"]):
        with runtime.seeded("surrogates", "parameters", number):
            build = NETWORKS[arguments["network"]]
            network = build(arguments["n_classes"], arguments["channels"], arguments["size"], width=width)
            networks.append(runtime.place(network))
    return networks


class _Training:
    """Steps on batches that each have a random stream of their own, so that only the step number is to be kept."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        images: Tensor,
        labels: Tensor,
        views: Augmentation,
        settings: SurrogateSettings,
        runtime: Runtime,
    ) -> None:
        self.networks = [network.train() for network in networks]
        self.images, self.labels, self.views = images, labels, views
        self.settings, self.runtime, self.done = settings, runtime, 0
        self.optimizers = [
            SGD(network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay)
            for network in networks
        ]

    def run(self) -> None:
        """Train to the last step."""
        saved = self.runtime.checkpoints.load()
        if saved is not None:
            self._load(saved)
        with self.runtime.progress.track("training surrogates", self.settings.steps) as report:
            while self.done < self.settings.steps:
                self._step()
                self.done += 1
                report(self.done)
                self.runtime.checkpoints.offer(self._state)

    def _step(self) -> None:
        images, labels = self._batch()
        rate = self.settings.learning_rate * (1 + math.cos(math.pi * self.done / self.settings.steps)) / 2
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            with self.runtime.autocast():
                logits = network(images)
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Return drawn images and a random view of each, (2 B, C, H, W), with their labels: both halves weigh alike."""
        rng, n = self.runtime.rng("surrogates", "batch", self.done), self.settings.batch_size
        rows = rng.integers(len(self.images), (n,))
        images, labels = as_float(self.images[rows]), self.labels[rows]
        seen = self.views.apply(images, self.views.draw(rng, n))
        return torch.cat([images, seen]), labels.repeat(2)

    def _state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "weights": [copied(network.state_dict()) for network in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def _load(self, saved: Mapping[str, Any]) -> None:
        self.done = int(saved["done"])
        for network, weights in zip(self.networks, saved["weights"], strict=True):
            network.load_state_dict(weights)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
