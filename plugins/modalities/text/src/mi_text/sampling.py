"""Choosing the next token: temperature, the most likely k, the nucleus p; each row by numbers of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from micore.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How texts go on. temperature 0: always the most likely token.

    top_k: only among so many most likely ones; top_p: only among the fewest that together have this probability.
    hot, hot_tokens: the temperature falls linearly from ``hot`` to ``temperature`` over so many first tokens (Carlini
    et al., 2021, section 5.1.1).
    """

    max_tokens: int = 32
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    hot: float | None = None
    hot_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.temperature < 0:
            raise ConfigError(f"temperature must be at least 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must lie in (0, 1], not {self.top_p}")

    def temperature_at(self, step: int) -> float:
        """Return the temperature of a step, counted from 0."""
        if self.hot is None or step >= self.hot_tokens:
            return self.temperature
        return self.hot + (self.temperature - self.hot) * step / self.hot_tokens


def choose(logits: Tensor, sampling: Sampling, step: int, uniform: Tensor) -> Tensor:
    """Return one token for each row of logits (N, V), int64 (N,), by one number in [0, 1) each, (N,)."""
    temperature = sampling.temperature_at(step)
    if temperature == 0:
        return logits.argmax(dim=1)
    ordered, tokens = (logits.float() / temperature).sort(dim=1, descending=True, stable=True)
    if sampling.top_k is not None:
        ordered[:, sampling.top_k :] = -torch.inf
    probabilities = ordered.softmax(dim=1)
    cumulative = probabilities.cumsum(dim=1)
    if sampling.top_p is not None:
        outside = cumulative - probabilities >= sampling.top_p
        probabilities = probabilities.masked_fill(outside, 0)
        cumulative = probabilities.cumsum(dim=1)
    reached = cumulative > uniform[:, None] * cumulative[:, -1:]
    place = reached.to(torch.uint8).argmax(dim=1, keepdim=True)
    return tokens.gather(1, place)[:, 0]
