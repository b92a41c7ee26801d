"""Stage A: the conditional denoiser is trained on pseudo-labelled public images, resumable bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_attack_diff_mi.denoiser import TIMES, Denoiser
from micore.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """How the denoiser is trained.

    null_probability: share of the images whose class is left out, for guidance. ema: decay of the running mean of
    the weights, at most (1 + s) / (10 + s) after s steps, so that a short training is not held back by its start.
    """

    iterations: int
    batch_size: int
    learning_rate: float
    ema: float
    null_probability: float


class Pretraining:
    """Train step by step; every step draws from a stream of its own.

    images: (N, C, H, W) in [0, 1] on the denoiser's device; members: (K, n) rows of them per pseudo label.
    """

    def __init__(
        self, denoiser: Denoiser, images: Tensor, members: Tensor, settings: PretrainingSettings, runtime: Runtime
    ) -> None:
        self.denoiser, self.mean = denoiser.train(), copy.deepcopy(denoiser).requires_grad_(False)
        self.images, self.members = 2 * images - 1, members
        self.settings, self.runtime = settings, runtime
        self.adam = torch.optim.AdamW(denoiser.parameters(), settings.learning_rate, weight_decay=0.0)
        self.iteration = 0

    def step(self) -> None:
        """Take one step on the denoising loss, and move the running mean of the weights."""
        loss = self.loss()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.iteration += 1
        decay = min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            pairs = zip(self.mean.parameters(), self.denoiser.parameters(), strict=True)
            for mean, value in pairs:
                mean.lerp_(value, 1 - decay)

    def loss(self) -> Tensor:
        """Return the mean squared error of the noise predicted in a batch."""
        rng, rows = self.runtime.rng("diff-mi", "pretraining", self.iteration), self.settings.batch_size
        drawn = rng.integers(self.members.numel(), (rows,))
        labels = torch.where(
            rng.uniform((rows,)) < self.settings.null_probability, self.denoiser.null, drawn // self.members.shape[1]
        )
        images = self.images[self.members.flatten()[drawn]]
        times, noise = 1 + rng.integers(TIMES, (rows,)), rng.normal(images.shape)
        with self.runtime.autocast():
            predicted = self.denoiser(self.denoiser.diffuse(images, times, noise), times, labels)
        return functional.mse_loss(predicted.float(), noise)

    def state(self) -> dict[str, Any]:
        """Return what changes, as a checkpoint."""
        return {
            "denoiser": self.denoiser.state_dict(), "mean": self.mean.state_dict(),
            "adam": self.adam.state_dict(), "iteration": self.iteration,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.mean.load_state_dict(state["mean"])
        self.adam.load_state_dict(state["adam"])
        self.iteration = int(state["iteration"])


def pretrain(
    denoiser: Denoiser, images: Tensor, members: Tensor, settings: PretrainingSettings, runtime: Runtime
) -> dict[str, Tensor]:
    """Train to the last step, from the saved state if there is one; return the mean weights."""
    training = Pretraining(denoiser, images, members, settings, runtime)
    saved = runtime.checkpoints.load()
    if saved is not None:
        training.load(saved)
    with runtime.progress.track("training the diffusion model", settings.iterations) as report:
        while training.iteration < settings.iterations:
            training.step()
            report(training.iteration)
            runtime.checkpoints.offer(training.state)
    return weights_of(training.mean)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's weights."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
