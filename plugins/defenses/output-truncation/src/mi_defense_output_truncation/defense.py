"""Next-token distributions cut to what is most likely.

Morris, Zhao, Chiu, Shmatikov, Rush: "Language Model Inversion", ICLR 2024 (arXiv:2311.13647), section 8: inversion
needs nearly the whole distribution, so that interfaces which show the most likely tokens only hinder it.

Threat model: an adversary who sees probabilities of tokens; one who has the weights is not hindered, and neither is one
who reads what the model writes: the service ``generate`` samples from the whole distribution, so that enough samples
show it again, with noise.

Fidelity notes (paper / here)
- Distributions are tempered, cut to the most likely k, then to the fewest of these that have the share top_p, and add
  up to 1 again: the order in which `mi_text.sampling` chooses tokens.
- Likelihoods of given tokens (service ``likelihoods``) come without the distribution around them, so nobody can look
  whether a token is among the k. Who has more than ``1 / (k + 1)`` is: no more than k tokens can have as much. And who
  has more than ``1 - top_p`` is within the nucleus. Only such tokens keep their likelihood, as it is: what others share
  would be needed to temper it or to make it part of a sum of 1. All others get the floor. An interface that knew the
  ranks would show more tokens, never fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mi_text.language_model import LIKELIHOODS
from mi_text.masked_model import FILL
from micore.contracts import Config, Defense, Samples


class OutputTruncationConfig(Config):
    """Settings of the defense."""

    top_k: int | None = Field(
        10, ge=1, description="most likely tokens that are shown; null: no bound; usual: 1, 5, 20"
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="show the fewest tokens that together have this share; null: no bound; usual: 0.9"
    )
    temperature: float = Field(1.0, gt=0, le=100, description="of the distributions; above 1 flattens them")
    floor: float = Field(
        1e-6, gt=0, lt=0.5, description="likelihood of a token that is not shown, where tokens are given"
    )

    @model_validator(mode="after")
    def _acts(self) -> Self:
        if self.top_k is None and self.top_p is None and self.temperature == 1:
            raise ValueError("give top_k, top_p or a temperature other than 1: without them every answer stays")
        if self.floor >= self.shown_above > 0:
            raise ValueError(f"floor must be below {self.shown_above:g}, from where on likelihoods are shown")
        return self

    @property
    def shown_above(self) -> float:
        """The probability above which a token is shown whatever the others have; 0 when all tokens are."""
        by_rank = 0.0 if self.top_k is None else 1 / (self.top_k + 1)
        return max(by_rank, 0.0 if self.top_p is None else 1 - self.top_p)


class OutputTruncation(Defense):
    """Cut distributions of tokens."""

    Config: ClassVar[type[Config]] = OutputTruncationConfig
    config: OutputTruncationConfig

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return the cut distributions (N, V)."""
        return truncated(scores, self.config)

    def adapt_service(self, service: str, results: Any, inputs: Samples) -> Any:
        """Return distributions of all positions cut, and likelihoods with the floor where a token is not shown."""
        if service == FILL:
            return _each(results, lambda found: truncated(found, self.config))
        if service == LIKELIHOODS and self.config.shown_above > 0:
            return _each(results, lambda found: floored(found, self.config))
        return results


def truncated(probabilities: Tensor, config: OutputTruncationConfig) -> Tensor:
    """Return distributions (..., V), tempered, cut and adding up to 1; of equal tokens the first ones are kept."""
    tempered = probabilities.float()
    if config.temperature != 1:
        tempered = (tempered.log() / config.temperature).softmax(dim=-1)
    ordered, tokens = tempered.sort(dim=-1, descending=True, stable=True)
    if config.top_k is not None:
        ordered = ordered.masked_fill(torch.arange(ordered.shape[-1], device=ordered.device) >= config.top_k, 0)
        ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    if config.top_p is not None:
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= config.top_p, 0)
    ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    return torch.zeros_like(ordered).scatter(-1, tokens, ordered)


def floored(likelihoods: Tensor, config: OutputTruncationConfig) -> Tensor:
    """Return log-likelihoods of tokens, any shape, in nats, with that of the floor where a token is not shown.

    What is exactly 0 is no token (padding) and stays.
    """
    hidden = likelihoods <= math.log(config.shown_above)
    return likelihoods.masked_fill(hidden, math.log(config.floor))


def _each(results: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change a tensor, or each of a list of results (of a target that is somewhere else, with rows of its lengths)."""
    if isinstance(results, Tensor):
        return change(results)
    return [change(torch.as_tensor(row, dtype=torch.float32)) for row in results]
