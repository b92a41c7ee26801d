"""Answers with noise: added to the scores, or drawn for each score between its neighbours.

Added noise has no single source; ART's Gaussian noise is the usual form. The order-preserving one follows the
idea of Ye, Shen, Zhu, Liu, Zhou: "One Parameter Defense: Defending Against Data Inference Attacks via
Differential Privacy", IEEE TIFS 2022 (arXiv:2203.06580).

Threat model: an adversary who sees scores and asks as often as the budget allows; one who has the weights is
not hindered. Noise that is fresh at each query is averaged away, so it is fixed by a secret key and the sample
(`micore.kit.keyed_noise`).

Fidelity notes (papers / other code / here)
- Added noise: ART draws fresh noise of deviation 0.2, clips at 0 and normalises. Here the noise is keyed;
  ``keyed=False`` is the fresh kind, for comparison. Rows with nothing left become the label alone.
- Order: the authors' mechanism was not at hand. Here each score is drawn between the midpoints to its
  neighbours with the density ``exp(-epsilon |v - p| / 2)``. These ranges depend on the scores, so this gives no
  differential privacy, of the training data or of anything else, whatever epsilon is: it is a randomisation
  that keeps the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_defense_score_masking.simplex import ScoreMask, in_full_precision, normalised, with_the_label_of
from micore.contracts import Config, Fitting, Samples
from micore.kit.keyed_noise import KeyedNoise, gaussian, laplace

SHAPES = MappingProxyType({"gaussian": gaussian, "laplace": laplace})


class NoiseConfig(Config):
    """Settings of where the noise comes from."""

    keyed: bool = Field(
        True, description="the same noise whenever a sample is asked; false: new at each query, for comparison"
    )
    levels: int = Field(
        256, ge=2, le=256, description="steps between 0 and 1 to tell samples apart; fewer: more samples share noise"
    )


class NoisyScores(ScoreMask):
    """Base of the defenses with noise: keeps the key."""

    config: NoiseConfig
    stochastic = True

    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self._noise = KeyedNoise(fresh=not config.keyed, levels=config.levels)

    def fit(self, fitting: Fitting) -> None:
        """Draw the key."""
        self._noise.draw_key()

    def state(self) -> Mapping[str, Tensor]:
        """Return the key."""
        return self._noise.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the key back.

        Raises: ModelError when there is none.
        """
        self._noise.load_state(state)


class OutputNoiseConfig(NoiseConfig):
    """Settings of added noise."""

    noise: Literal["gaussian", "laplace"] = Field("gaussian", description="distribution of the noise")
    scale: float = Field(
        0.2, gt=0, le=100, description="gaussian: standard deviation (ART: 0.2); laplace: scale b, 2 / epsilon"
    )
    keep_label: bool = Field(False, description="keep the most likely class; ART does not")


class OutputNoise(NoisyScores):
    """Add noise to each score."""

    Config: ClassVar[type[Config]] = OutputNoiseConfig
    config: OutputNoiseConfig
    differentiable = True
    order_preserving = False
    argmax_preserving = False

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return noisy scores (N, K)."""
        scores = in_full_precision(scores)
        numbers = self._noise.uniforms(inputs, scores, scores.shape[1])
        drawn = SHAPES[self.config.noise](numbers).to(scores.dtype)
        masked = normalised((scores + self.config.scale * drawn).clamp(min=0), scores)
        return with_the_label_of(scores, masked) if self.config.keep_label else masked


class OrderNoiseConfig(NoiseConfig):
    """Settings of the noise that keeps the order."""

    epsilon: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="how close a score stays; small: anywhere between its neighbours; usual: 0.01 to 10",
    )


class OrderNoise(NoisyScores):
    """Draw each score anew between the midpoints to its neighbours."""

    Config: ClassVar[type[Config]] = OrderNoiseConfig
    config: OrderNoiseConfig
    differentiable = True
    order_preserving = True
    argmax_preserving = True

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return scores (N, K) in the same order."""
        scores = in_full_precision(scores)
        numbers = self._noise.uniforms(inputs, scores, scores.shape[1]).to(scores.dtype)
        ranked, order = scores.sort(dim=1, descending=True, stable=True)
        low, high = ranges(ranked)
        drawn = truncated_laplace(numbers, ranked, low, high, 2 / self.config.epsilon)
        masked = torch.empty_like(scores).scatter(1, order, drawn)
        return with_the_label_of(scores, normalised(masked, scores))


def ranges(ranked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower and upper bounds (N, K) of falling scores: the midpoints between neighbours, 0 and 1."""
    middles = (ranked[:, :-1] + ranked[:, 1:]) / 2
    ends = ranked.new_zeros(len(ranked), 1)
    return torch.cat([middles, ends], dim=1), torch.cat([ends + 1, middles], dim=1)


def truncated_laplace(numbers: Tensor, centres: Tensor, low: Tensor, high: Tensor, scale: float) -> Tensor:
    """Turn uniform numbers into ones of density ``exp(-|v - centre| / scale)`` between low and high, by the inverse.

    The mass below the centre is ``1 - exp(-(centre - low) / scale)``, above it likewise, in units that cancel.
    """
    below = -torch.expm1((low - centres) / scale)
    above = -torch.expm1((centres - high) / scale)
    beyond = numbers * (below + above) - below  # past the centre when positive
    distances = -scale * torch.log1p(-beyond.abs())
    return torch.clamp(centres + beyond.sign() * distances, low, high)
