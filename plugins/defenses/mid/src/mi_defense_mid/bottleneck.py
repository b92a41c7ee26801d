"""The variational bottleneck with its linear head, and noise that a sample alone decides."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

SIGMA_SHIFT = 5.0  # softplus(-5) = 0.0067: training starts almost without noise
SMALLEST_SIGMA = 1e-6
CODE_BITS = 32
MASK = 2**32 - 1


class Bottleneck(nn.Module):
    """Features (..., d) to logits (..., classes) through ``width`` noisy numbers.

    zeta = mu + sigma * noise, sigma = softplus(s - 5), where a linear layer gives mu and s, and logits = head(zeta).
    In training the noise is drawn from the global generator. In eval mode there is none (``answer="mean"``), or it is
    a fixed function of the features (``"sample"``), drawn by the buffers ``key`` and ``directions``.
    """

    key: Tensor
    directions: Tensor

    def __init__(self, features: int, width: int, n_classes: int, answer: Literal["mean", "sample"] = "mean") -> None:
        super().__init__()
        self.answer = answer
        self.statistics = nn.Linear(features, 2 * width)
        self.head = nn.Linear(width, n_classes)
        if answer == "sample":
            self.register_buffer("key", torch.randint(2**32, ()))
            self.register_buffer("directions", torch.randn(features, CODE_BITS))
        self._divergence: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits; in training, remember the divergence of this pass."""
        mu, sigma = moments(self.statistics(features))
        keeps = self.training and torch.is_grad_enabled()
        self._divergence = divergence(mu, sigma) if keeps else None
        if self.training:
            mu = mu + sigma * torch.randn_like(mu)
        elif self.answer == "sample":
            mu = mu + sigma * fixed_noise(self._code(features), mu.shape[-1], self.key)
        logits: Tensor = self.head(mu.to(self.head.weight.dtype))
        return logits

    def take_divergence(self) -> Tensor | None:
        """Return the divergence of the last pass in training with gradients, (...,), and forget it; None without."""
        found, self._divergence = self._divergence, None
        return found

    def _code(self, features: Tensor) -> Tensor:
        centred = features.float() - features.float().mean(dim=-1, keepdim=True)
        return sign_code(centred.detach(), self.directions.float())


def moments(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Split what the linear layer gives, (..., 2 width), into mean and standard deviation, in float32."""
    mu, raw = statistics.float().chunk(2, dim=-1)
    return mu, functional.softplus(raw - SIGMA_SHIFT).clamp(min=SMALLEST_SIGMA)


def divergence(mu: Tensor, sigma: Tensor) -> Tensor:
    """Return KL(N(mu, sigma^2) || N(0, 1)) in nats, summed over the last dimension.

    Its mean over samples is an upper bound of the mutual information of input and bottleneck.
    """
    return -0.5 * (1 + 2 * sigma.log() - mu.square() - sigma.square()).sum(dim=-1)


def sign_code(rows: Tensor, directions: Tensor) -> Tensor:
    """Return an integer of `CODE_BITS` bits per row of (..., d): the signs of its projections on the directions.

    One bit each, because a finer rounding would make the code hang on the last digits of the arithmetic.
    """
    with torch.autocast(rows.device.type, enabled=False):
        signs = (rows @ directions > 0).long()
    return (signs << torch.arange(directions.shape[1], device=rows.device)).sum(dim=-1)


def fixed_noise(codes: Tensor, width: int, key: Tensor) -> Tensor:
    """Return noise of N(0, 1), float32 (..., width), that codes below 2^32 (...) and the key decide.

    Box-Muller on numbers from a keyed integer hash; the same on every device but for rounding.
    """
    counters = torch.arange(2 * width, device=codes.device)
    rows = _mixed(_mixed(codes ^ key) ^ key)
    first, second = _mixed(rows[..., None] ^ _mixed(counters + 1)).chunk(2, dim=-1)
    radius = (-2 * ((first.float() + 0.5) / 2**32).log()).clamp(min=0).sqrt()
    return radius * (2 * math.pi / 2**32 * second.float()).cos()


def _mixed(numbers: Tensor) -> Tensor:
    """Return a hash of numbers below 2^32, in int64: products wrap, their lower half is right all the same."""
    numbers = numbers ^ (numbers >> 16)
    numbers = (numbers * 0x7FEB352D) & MASK
    numbers = numbers ^ (numbers >> 15)
    numbers = (numbers * 0x846CA68B) & MASK
    return numbers ^ (numbers >> 16)
