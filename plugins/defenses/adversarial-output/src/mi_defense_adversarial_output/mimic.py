"""The mimic of the adversary: a network that reconstructs samples from scores."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST_LOG_SCORE = -27.6
"""Of scores that an interface or an earlier defense cut to 0: about log(1e-12)."""
LARGEST_SIDE = 64
LONGEST = 4096
SMALLEST_IMAGE = 8
START = 4


def log_scores(scores: Tensor) -> Tensor:
    """Return the logarithms of scores (N, K), float32, at least -27.6."""
    return scores.float().clamp(min=0).log().clamp(min=LOWEST_LOG_SCORE)


def mimicked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a mimic reconstructs of samples of this shape: images up to 64 px, else a vector."""
    if is_image(shape):
        return (shape[0], *(min(size, LARGEST_SIDE) for size in shape[1:]))
    return (min(math.prod(shape), LONGEST),)


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether samples of this shape are decoded by convolutions."""
    return len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE


def pooled(samples: Tensor) -> Tensor:
    """Return samples (N, ...) averaged to what a mimic reconstructs of them, float32."""
    shape = tuple(samples.shape[1:])
    wanted = mimicked_shape(shape)
    if is_image(shape):
        return functional.adaptive_avg_pool2d(samples.float(), (wanted[1], wanted[2]))
    return functional.adaptive_avg_pool1d(samples.float().flatten(1)[:, None], wanted[0])[:, 0]


class Mimic(nn.Module):
    """Log-scores (N, K) to pooled samples, within the range of those it is trained on.

    Smooth activations throughout, and no statistics of the batch: the sign of its gradient must depend on the row
    alone, and not on rounding.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, n_classes: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.decoder = _convolutions(n_classes, shape, width) if len(shape) == 3 else _layers(n_classes, shape, width)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, logs: Tensor, samples: Tensor) -> None:
        """Take the mean and spread of log-scores and the range of pooled samples."""
        low, high = samples.aminmax()
        self.low.copy_(low)
        self.high.copy_(high)
        self.centre.copy_(logs.mean())
        self.scale.copy_(logs.std().clamp(min=1e-3))

    def forward(self, logs: Tensor) -> Tensor:
        """Return what is reconstructed."""
        found: Tensor = self.low + (self.high - self.low) * self.decoder((logs - self.centre) / self.scale)
        return found


def _layers(n_classes: int, shape: tuple[int, ...], width: int) -> nn.Sequential:
    hidden = 8 * width
    return nn.Sequential(
        nn.Linear(n_classes, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
        nn.Linear(hidden, shape[0]), nn.Sigmoid(),
    )  # fmt: skip


def _convolutions(n_classes: int, shape: tuple[int, ...], width: int) -> nn.Sequential:
    """Double a grid of about 4 x 4 until it covers the image, with half the channels each time."""
    channels, height, width_px = shape
    doublings = max(1, math.ceil(math.log2(min(height, width_px) / START)))
    factor = 2**doublings
    grid = (math.ceil(height / factor), math.ceil(width_px / factor))
    planes = [width * 2 ** (doublings - step) for step in range(doublings + 1)]
    layers: list[nn.Module] = [nn.Linear(n_classes, planes[0] * grid[0] * grid[1]), nn.Unflatten(1, (planes[0], *grid))]
    for inward, outward in pairwise(planes):
        layers += [nn.GroupNorm(1, inward), nn.SiLU(), nn.ConvTranspose2d(inward, outward, 4, stride=2, padding=1)]
    layers += [nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1), _Cut(height, width_px), nn.Sigmoid()]
    return nn.Sequential(*layers)


class _Cut(nn.Module):
    """The upper left part of an image."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self._size = (height, width)

    def forward(self, images: Tensor) -> Tensor:
        height, width = self._size
        return images[:, :, :height, :width]
