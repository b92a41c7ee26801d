"""Telling samples that carry a trigger by their penultimate features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.kit.features import features_and_logits

__all__ = ["Count", "Tap", "class_means", "features_of", "signatures_of", "threshold_of", "trap_scores"]


def class_means(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the mean of the features (N, d) of each class, (K, d); zero for a class without any."""
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, labels, features)
    counts = features.new_zeros(n_classes).index_add_(0, labels, features.new_ones(len(labels)))
    return sums / counts.clamp(min=1)[:, None]


def signatures_of(features: Tensor, labels: Tensor, origins: Tensor) -> Tensor:
    """Return the direction (K, d), of length 1, from each class's origin (K, d) to the mean of its features (N, d)."""
    return functional.normalize(class_means(features, labels, len(origins)) - origins, dim=1)


def trap_scores(features: Tensor, predictions: Tensor, signatures: Tensor, origins: Tensor) -> Tensor:
    """Return the cosine (N,) between features (N, d), seen from their class's origin, and that class's signature.

    The class is the one that a sample is taken for.
    """
    return functional.cosine_similarity(features - origins[predictions], signatures[predictions], dim=1)


def threshold_of(scores: Tensor, quantile: float) -> Tensor:
    """Return the score that this share of clean samples does not exceed."""
    return scores.quantile(quantile)


BATCH = 256


def features_of(module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return penultimate features (N, d) and logits (N, K), float32."""
    parts = [features_and_logits(module, part) for part in inputs.split(BATCH)]
    return torch.cat([part[0] for part in parts]).float(), torch.cat([part[1] for part in parts]).float()


class Tap:
    """A forward hook of the classification layer: keeps what went in and came out last, in eval mode, detached.

    It holds nothing secret, and a copied network gets a tap of its own, as it is a bound method.
    """

    def __init__(self) -> None:
        self.features: Tensor | None = None
        self.logits: Tensor | None = None

    def catch(self, layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the layer's input and output."""
        if not layer.training and arguments[0].ndim == 2:
            self.features, self.logits = arguments[0].detach(), output.detach()

    def take(self, scores: Tensor) -> Tensor | None:
        """Return the features that belong to answers (M, K), once; None when they were not caught.

        A batch may have been filled up with rows that nobody asked for, which are not among the answers: then each
        answer gets the row that was answered most like it.
        """
        features, logits = self.features, self.logits
        self.features = self.logits = None
        if features is None or logits is None or len(features) < len(scores):
            return None
        if len(features) > len(scores):
            distances = torch.cdist(scores.float(), logits.float().softmax(dim=1))
            features = features[distances.argmin(dim=1)]
        return features.float()


@dataclass
class Count:
    """What was seen of the queries: how many, how many could be judged and looked like traps, and the first such."""

    queries: int = 0
    judged: int = 0
    flagged: int = 0
    first: int | None = None

    def add(self, flags: Tensor | None, n: int) -> None:
        """Count n queries with their flags (n,), or None where they could not be judged."""
        if flags is not None:
            rows = flags.nonzero().flatten().tolist()
            if rows and self.first is None:
                self.first = self.queries + int(rows[0])
            self.judged, self.flagged = self.judged + n, self.flagged + len(rows)
        self.queries += n
