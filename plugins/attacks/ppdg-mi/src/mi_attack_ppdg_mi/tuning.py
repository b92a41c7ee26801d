"""Tuning a copy of a generator so that it gives more of what looks like a set of images."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mi_attack_ppdg_mi.density import DENSITIES, pyramid
from micore.runtime import Random

Objective = Literal["points", "transport", "mmd"]


@dataclass(frozen=True)
class Tuning:
    """How a generator is tuned around pseudo-private images.

    objective: ``points``: what is near each latent should look like its image; ``transport`` and ``mmd``: what is near
    all latents should be distributed like all images. radius: standard deviation of the neighbours, in that of the
    latents themselves. neighbours: of each latent, per step.
    """

    objective: Objective = "points"
    steps: int = 150
    learning_rate: float = 3e-4
    decay: float = 0.9
    radius: float = 0.3
    neighbours: int = 4

    def tune(self, generator: nn.Module, latents: Tensor, images: Tensor, label: int, rng: Random) -> nn.Module:
        """Return a tuned copy of a generator in eval mode; latents (M, ...), images (M, C, H, W) in [0, 1].

        The statistics of its normalisations stay as they are.
        """
        tuned = copy.deepcopy(generator).eval().requires_grad_(True)
        adam = torch.optim.Adam(tuned.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.ExponentialLR(adam, self.decay ** (10 / max(self.steps, 1)))
        wanted = pyramid(images)
        spread = self.radius * latents.std()
        labels = torch.full((len(latents) * self.neighbours,), label, device=latents.device)
        for _ in range(self.steps):
            near = self._neighbours(latents, spread, rng)
            loss = self._loss(pyramid(tuned(near, labels)), wanted)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            schedule.step()
        return tuned.requires_grad_(False)

    def _neighbours(self, latents: Tensor, spread: Tensor, rng: Random) -> Tensor:
        near = latents.repeat_interleave(self.neighbours, dim=0)
        return near + spread * rng.normal(near.shape)

    def _loss(self, generated: Tensor, wanted: Tensor) -> Tensor:
        if self.objective == "points":
            return (generated - wanted.repeat_interleave(self.neighbours, dim=0)).square().sum(dim=1).mean()
        return DENSITIES[self.objective](generated, wanted)
