"""The purifier's network, its loss, and what keeps the label."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST_LOG_SCORE = -27.6
"""Of scores that an interface or an earlier defense cut to 0: about log(1e-12)."""


def logits_of(scores: Tensor) -> Tensor:
    """Return the logits behind scores (N, K), float32, whose mean over the classes is 0: scores tell no more."""
    logs = scores.float().clamp(min=0).log().clamp(min=LOWEST_LOG_SCORE)
    return logs - logs.mean(dim=1, keepdim=True)


def widths(n_classes: int, bottleneck: int | None, middle_layer: bool) -> list[int]:
    """Return the widths from the input to the bottleneck.

    Without a given one the bottleneck is ``0.617 K ** 0.81``, rounded up, but less than K: 4 for 10 classes and 100
    for 530. The middle layer is half-way between both: 7 for 10 classes.
    """
    narrow = bottleneck or max(1, min(math.ceil(0.617 * n_classes**0.81), n_classes - 1))
    return [n_classes, *([(n_classes + narrow) // 2] if middle_layer else []), narrow]


class Autoencoder(nn.Module):
    """Logits (N, K) through a bottleneck to logits (N, K); the same widths on the way in and out.

    What enters is centred and scaled by constants that were measured on the logits it is trained on.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        around = [*sizes, *reversed(sizes[:-1])]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(around):
            layers += [nn.Linear(wide, narrow), nn.ELU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.register_buffer("centre", torch.zeros(sizes[0]))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, logits: Tensor) -> None:
        """Set the constants from logits (N, K)."""
        self.centre.copy_(logits.mean(dim=0))
        self.scale.copy_((logits - self.centre).square().mean().sqrt().clamp(min=1e-3))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the purified logits, (N, K)."""
        purified: Tensor = self.centre + self.scale * self.layers((logits - self.centre) / self.scale)
        return purified


def purification_loss(purified: Tensor, logits: Tensor, label_weight: float) -> Tensor:
    """Return ``mean (P(z) - z)^2 + lambda_c CE(P(z), argmax z)``, a scalar."""
    closeness = functional.mse_loss(purified, logits)
    return closeness + label_weight * functional.cross_entropy(purified, logits.argmax(dim=1))


def guarded(purified: Tensor, scores: Tensor) -> Tensor:
    """Return purified scores (N, K) whose label is that of ``scores``: where it changed, the two entries swap places.

    Where a tie still hides the label, the scores stay as they were.
    """
    label, found = (values.argmax(dim=1, keepdim=True) for values in (scores, purified))
    largest, own = purified.gather(1, found), purified.gather(1, label)
    swapped = purified.scatter(1, found, own).scatter(1, label, largest)
    return torch.where(swapped.argmax(dim=1, keepdim=True) == label, swapped, scores)


def dispersion(values: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over all rows of the squared distance of values (N, K) to their class's mean, a scalar."""
    n_classes = values.shape[1]
    counts = torch.zeros(n_classes, device=values.device).index_add(0, labels, torch.ones_like(values[:, 0]))
    sums = torch.zeros(n_classes, n_classes, device=values.device).index_add(0, labels, values)
    means = sums / counts.clamp(min=1)[:, None]
    return (values - means[labels]).square().sum(dim=1).mean()
