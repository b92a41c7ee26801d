"""Answers of another shape: a temperature, and the reverse sigmoid.

Temperature: Shokri, Stronati, Song, Shmatikov: "Membership Inference Attacks Against Machine Learning Models",
S&P 2017 (arXiv:1610.05820). Reverse sigmoid: Lee, Edwards, Molloy, Su: "Defending Against Machine Learning
Model Stealing Attacks Using Deceptive Perturbations", 2018 (arXiv:1806.00054).

Threat model: an adversary who sees scores; one who has the weights is not hindered. Both are fixed functions:
who knows that they are there and has some answers of a model like it can turn them back, the temperature
exactly.

Fidelity notes (papers / other code / here)
- Temperature: the paper divides the logits. A defense of answers sees probabilities: ``p^(1/T)``, normalised,
  is the same, but for scores that float32 had made 0, which stay 0.
- Reverse sigmoid: constants are those of ART (beta 1, gamma 0.1). Lee et al. say that accuracy stays. The
  formula by itself does not give that: the curve falls near 0 and near 1, so a class of almost no probability
  may pass one of 0.3. Here the label's score changes places with the one that passed it (``keep_label``); ART
  lets the label change.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_defense_score_masking.simplex import ScoreMask, in_full_precision, normalised, with_the_label_of
from micore.contracts import Config, Samples

LARGEST_LOGIT = math.log(1e9 - 1)
"""Of scores kept within 1e-9 of 0 and 1; float32 has no number so close to 1, so the logit is clipped instead."""


class TemperatureConfig(Config):
    """Settings of the temperature."""

    temperature: float = Field(
        5.0, gt=0, le=1000, description="divides the logits; above 1 flattens; usual: 2 to 50 (Shokri: 20 at most)"
    )


class Temperature(ScoreMask):
    """Flatten the scores."""

    Config: ClassVar[type[Config]] = TemperatureConfig
    config: TemperatureConfig
    differentiable = True
    order_preserving = True
    argmax_preserving = True

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return scores (N, K) of a higher temperature."""
        scores = in_full_precision(scores)
        return with_the_label_of(scores, tempered(scores, self.config.temperature))


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """Return ``p^(1/T)``, normalised, computed as logarithms (N, K)."""
    return (scores.log() / temperature).softmax(dim=1)


class ReverseSigmoidConfig(Config):
    """Settings of the reverse sigmoid."""

    beta: float = Field(1.0, gt=0, le=10, description="height of what is taken away; ART: 1")
    gamma: float = Field(0.1, gt=0, le=10, description="steepness in the score's logit; ART: 0.1")
    keep_label: bool = Field(True, description="keep the most likely class; ART does not")


class ReverseSigmoid(ScoreMask):
    """Take a sigmoid of its own logit away from each score."""

    Config: ClassVar[type[Config]] = ReverseSigmoidConfig
    config: ReverseSigmoidConfig
    differentiable = True
    order_preserving = False
    argmax_preserving = True

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return the bent scores (N, K)."""
        scores = in_full_precision(scores)
        bent = (scores - deception(scores, self.config.beta, self.config.gamma)).clamp(0, 1)
        masked = normalised(bent, scores)
        return with_the_label_of(scores, masked) if self.config.keep_label else masked


def deception(scores: Tensor, beta: float, gamma: float) -> Tensor:
    """Return ``beta (sigmoid(gamma logit(p)) - 1/2)``: what is taken away from each score (N, K)."""
    logits = (scores.log() - torch.log1p(-scores)).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
    return beta * ((gamma * logits).sigmoid() - 0.5)
