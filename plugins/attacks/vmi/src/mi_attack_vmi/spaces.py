"""Where the distributions live: the latents of a GAN, or one latent per layer of a StyleGAN.

Both generators are called with latents and give images; labels, which `micore.contracts.HasGenerator` passes, are
ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mi_image.stylegan_prior import StyleGanPrior, restore_stylegan
from mi_image.wgan_training import restore_gan
from micore.runtime import Random, Runtime

__all__ = ["LatentSpace", "LayeredStyleGan", "restore_space", "with_weights"]

RENDERED_ROWS = 32


class LayeredStyleGan(nn.Module):
    """A StyleGAN2 with a latent of its own for every layer that takes a style code (Wang et al., 2021, section 4)."""

    def __init__(self, prior: StyleGanPrior) -> None:
        super().__init__()
        self.stylegan, self._prior = prior.generator, prior

    @property
    def latent_dim(self) -> int:
        """Length of one layer's latent."""
        return self._prior.latent_dim

    @property
    def layers(self) -> int:
        """Layers that take a style code."""
        return self._prior.num_ws

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Render latents (B, layers, latent_dim): each is mapped on its own and steers its layer."""
        codes = self._prior.map(latents.flatten(0, 1))[:, 0]
        return self._prior.render(codes.view(*latents.shape[:2], -1))


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """A generator and the shape of its latents; also the `Prior` of a run's control: one z ~ N(0, I) for all layers.

    layers: how many latents make one image; the generator takes (B, latent_dim) if it is 1 and it is a plain GAN.
    """

    generator: nn.Module
    latent_dim: int
    layers: int

    def latents(self, drawn: Tensor) -> Tensor:
        """Return latents of images (B, layers, latent_dim) in the shape that the generator takes."""
        return drawn if isinstance(self.generator, LayeredStyleGan) else drawn[:, 0]

    def render(self, drawn: Tensor) -> Tensor:
        """Return images (B, C, S, S) in [0, 1] of latents (B, layers, latent_dim)."""
        images: Tensor = self.generator(self.latents(drawn))
        return images

    @torch.no_grad()
    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw n images (n, C, S, S) in [0, 1] of the prior."""
        drawn = rng.normal((n, 1, self.latent_dim)).expand(-1, self.layers, -1)
        return torch.cat([self.render(part) for part in drawn.split(RENDERED_ROWS)])


def restore_space(state: Mapping[str, Any], runtime: Runtime) -> LatentSpace:
    """Build the space of the prior that was prepared: ``stylegan`` or ``gan``."""
    if "stylegan" in state:
        layered = LayeredStyleGan(restore_stylegan(state["stylegan"], runtime))
        return LatentSpace(generator=layered, latent_dim=layered.latent_dim, layers=layered.layers)
    generator, _ = restore_gan(state["gan"], runtime)
    return LatentSpace(generator=generator, latent_dim=generator.latent_dim, layers=1)


def with_weights(state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what was prepared with other weights (a state dict) of the space's generator."""
    if "stylegan" in state:
        bare = {name.removeprefix("stylegan."): tensor for name, tensor in weights.items()}
        return {"stylegan": {**state["stylegan"], "weights": bare}}
    return {"gan": {**state["gan"], "generator": dict(weights)}}
