"""What searches of a generator's latents minimise: that a sample looks real, and like its class.

Source: Zhang et al., "The Secret Revealer" (GMI, CVPR 2020), equation 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from micore.kit.losses import RowLoss

__all__ = ["Identity", "LatentObjective", "Realism", "identity_of", "negative_score"]

Identity = Callable[[Tensor, Tensor], Tensor]
"""Samples (B, ...) and labels (B,) to losses (B,): lower is more like the class."""
Realism = Callable[[Tensor], Tensor]
"""Samples (B, ...) to losses (B,): lower looks more real."""


def negative_score(critic: nn.Module) -> Realism:
    """Return -D(x) of a critic with one score (GMI's prior loss)."""
    return lambda samples: -critic(samples).float()


def identity_of(logits: Callable[[Tensor], Tensor], loss: RowLoss) -> Identity:
    """Return a loss of what a classifier, such as a target's ``module``, says of the samples."""
    return lambda samples, labels: loss(logits(samples), labels)


@dataclass(frozen=True, kw_only=True)
class LatentObjective:
    """realism(G(z)) + weight x identity(G(z), y), for latents z (B, d) and rows' ``labels``."""

    generator: Callable[[Tensor], Tensor]
    realism: Realism
    identity: Identity
    identity_weight: float = 100.0

    def __call__(self, latents: Tensor, constants: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        """Return losses (B,)."""
        samples = self.generator(latents)
        return self.realism(samples) + self.identity_weight * self.identity(samples, constants["labels"])
