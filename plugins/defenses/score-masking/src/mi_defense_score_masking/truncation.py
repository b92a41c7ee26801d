"""Answers that tell less: rounded scores, the largest scores, the label alone.

Rounding as a defense: Fredrikson, Jha, Ristenpart: "Model Inversion Attacks that Exploit Confidence Information
and Basic Countermeasures", CCS 2015. Rounding and cutting to the largest scores, also to the label alone:
Shokri, Stronati, Song, Shmatikov: "Membership Inference Attacks Against Machine Learning Models", S&P 2017
(arXiv:1610.05820).

Threat model: an adversary who sees scores; one who has the weights is not hindered.

Fidelity notes (papers / other code / here)
- The papers do not say what rows add up to. The code that most people use (ART) leaves them as they come out.
  Here they add up to 1 again, because every reader of an answer takes it for probabilities;
  ``renormalise=False`` leaves them.
- Rounding may make the two largest scores equal, and then the answered label is chance. Here the label of the
  undefended scores stays ahead, by the least step a float can make; accuracy is exactly that of the undefended
  target.
- A row with nothing left, such as equal scores of very many classes, becomes the label alone.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from mi_defense_score_masking.simplex import (
    ScoreMask,
    in_full_precision,
    normalised,
    only_the_label,
    with_the_label_of,
)
from micore.contracts import Config, Samples


class RoundScoresConfig(Config):
    """Settings of rounding."""

    decimals: int = Field(2, ge=1, le=6, description="decimals that are kept; ART: 3, which hinders no attack of today")
    step: float | None = Field(
        None, gt=0, le=1, description="round to multiples of it instead, such as 0.05; Fredrikson: 0.001 to 0.1"
    )
    renormalise: bool = Field(True, description="make rows add up to 1 again")


class RoundScores(ScoreMask):
    """Round each score."""

    Config: ClassVar[type[Config]] = RoundScoresConfig
    config: RoundScoresConfig
    differentiable = False
    order_preserving = True
    argmax_preserving = True

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return rounded scores (N, K)."""
        scores = in_full_precision(scores)
        step = self.config.step or 10.0**-self.config.decimals
        rounded = (scores / step).round() * step
        return with_the_label_of(scores, normalised(rounded, scores) if self.config.renormalise else rounded)


class TopKConfig(Config):
    """Settings of cutting to the largest scores; a score is kept that passes both conditions."""

    k: int | None = Field(
        3, ge=1, description="scores that are kept of each sample; null: no bound; usual: 1, 3, 5, 10"
    )
    cutoff: float | None = Field(
        None, ge=0, le=1, description="keep only scores of at least this much, and always the largest; ART: 0.25"
    )
    renormalise: bool = Field(True, description="make rows add up to 1 again")

    @model_validator(mode="after")
    def _cuts_something(self) -> Self:
        if self.k is None and self.cutoff is None:
            raise ValueError("give k, cutoff or both: without them every score is kept")
        return self


class TopK(ScoreMask):
    """Keep the largest scores, make the others 0."""

    Config: ClassVar[type[Config]] = TopKConfig
    config: TopKConfig
    differentiable = True
    order_preserving = True
    argmax_preserving = True

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return the largest scores (N, K) and zeros."""
        scores = in_full_precision(scores)
        masked = self._largest(scores)
        if self.config.cutoff is not None:
            highest = scores.amax(dim=1, keepdim=True)
            masked = masked * ((scores >= self.config.cutoff) | (scores == highest))
        return with_the_label_of(scores, normalised(masked, scores) if self.config.renormalise else masked)

    def _largest(self, scores: Tensor) -> Tensor:
        k = self.config.k
        if k is None or k >= scores.shape[1]:
            return scores
        kept = scores.topk(k, dim=1)
        return scores.new_zeros(scores.shape).scatter(1, kept.indices, kept.values)


class LabelOnly(ScoreMask):
    """Answer 1 for the most likely class and 0 for the others."""

    differentiable = False
    order_preserving = True
    argmax_preserving = True

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return the label of scores (N, K) as probabilities."""
        return only_the_label(in_full_precision(scores))
