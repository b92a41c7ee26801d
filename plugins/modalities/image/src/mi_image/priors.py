"""Generators as priors: what can be sampled without a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class GanPrior:
    """An unconditional generator seen as a prior: latents z ~ N(0, I).

    generator: maps z (n, latent_dim) to images, and has the attribute ``latent_dim``.
    """

    def __init__(self, generator: nn.Module) -> None:
        self.generator = generator

    @torch.no_grad()
    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw n images (n, C, H, W) in [0, 1]."""
        images: Tensor = self.generator(rng.normal((n, self.generator.latent_dim)))
        return images
