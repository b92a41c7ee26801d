"""The inversion network that a dedicated purifier is trained against."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.errors import ModelError

LARGEST_SIDE = 32
LONGEST = 1024
HIDDEN = 256


def shrunk(samples: Any) -> Tensor:
    """Return samples as vectors (N, d), images averaged to at most 32 px and all else to at most 1024 values.

    Raises: ModelError for samples that are no floating-point tensors.
    """
    if not isinstance(samples, Tensor) or not samples.is_floating_point() or samples.ndim < 2:
        raise ModelError(
            "purifier: the term against an inversion network needs samples that are real-valued tensors of one shape",
            hint="inversion_weight=0",
        )
    if samples.ndim == 4:
        height, width = (min(size, LARGEST_SIDE) for size in samples.shape[2:])
        return functional.adaptive_avg_pool2d(samples, (height, width)).flatten(1)
    flat = samples.flatten(1)
    return functional.adaptive_avg_pool1d(flat[:, None], min(flat.shape[1], LONGEST))[:, 0]


class InversionNetwork:
    """A network from scores to samples, and its own optimiser: it learns from what the purifier gives at the time.

    Its output stays in the range of the samples, so that its error has an upper bound, which the purifier needs.
    """

    def __init__(self, n_classes: int, samples: Tensor, learning_rate: float) -> None:
        self._low, self._high = samples.aminmax()
        self.network = nn.Sequential(
            nn.Linear(n_classes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, math.prod(samples.shape[1:])), nn.Sigmoid(),
        ).to(samples.device)  # fmt: skip
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    def error(self, logits: Tensor, samples: Tensor) -> Tensor:
        """Return the mean squared error of what is reconstructed of purified logits (B, K), a scalar."""
        found = self._low + (self._high - self._low) * self.network(logits.softmax(dim=1))
        return functional.mse_loss(found, samples)

    def learn(self, logits: Tensor, samples: Tensor) -> None:
        """Take one step."""
        self._optimizer.zero_grad()
        self.error(logits.detach(), samples).backward()
        self._optimizer.step()
