"""Generators as priors: what can be sampled without a target."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mi_image.conditional_gan import ConditionalGenerator
from micore.runtime import Random


class ConditionalPrior:
    """A conditional generator seen as a prior: labels are drawn uniformly, so no class is aimed at."""

    def __init__(self, generator: ConditionalGenerator) -> None:
        self.generator = generator

    @torch.no_grad()
    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw n images (n, C, H, W) in [0, 1]."""
        latents = rng.normal((n, self.generator.latent_dim))
        labels = rng.integers(self.generator.n_classes, (n,))
        return self.generator(latents, labels)


class LatentGenerator(Protocol):
    """What a prior needs of an unconditional generator."""

    latent_dim: int

    def __call__(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent_dim) to images (n, C, H, W) in [0, 1]."""
        ...


class GanPrior:
    """An unconditional generator seen as a prior: latents z ~ N(0, I)."""

    def __init__(self, generator: LatentGenerator) -> None:
        self.generator = generator

    @torch.no_grad()
    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw n images (n, C, H, W) in [0, 1]."""
        return self.generator(rng.normal((n, self.generator.latent_dim)))
