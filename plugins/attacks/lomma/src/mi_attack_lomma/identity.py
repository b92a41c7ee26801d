"""LOMMA's identity loss: raw logits of the target and its students, with a prior of the target's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from micore.kit.features import features_and_logits
from micore.kit.losses import RowLoss

Distance = Literal["mean", "sum"]


@dataclass(frozen=True, kw_only=True)
class FeaturePrior:
    """weight x |f_T(x) - mean|^2 (section 4.1), which holds pictures where unbounded logits still mean something.

    mean: (F,), over public images. distance: mean or sum of the squares over the F features.
    """

    mean: Tensor
    weight: float = 1.0
    distance: Distance = "mean"

    def __call__(self, features: Tensor) -> Tensor:
        """Return losses (B,) of features (B, F)."""
        squares = (features.flatten(1) - self.mean).square()  # in float32 at least, as the mean is
        return self.weight * (squares.mean(dim=1) if self.distance == "mean" else squares.sum(dim=1))


@dataclass(frozen=True, kw_only=True)
class AugmentedIdentity:
    """1/|M| sum over M in {target, students} of loss(M(x), y), and the feature prior of the target once.

    target: images to logits, with a linear layer last when there is a prior.
    """

    target: nn.Module
    loss: RowLoss
    students: Sequence[Callable[[Tensor], Tensor]] = ()
    prior: FeaturePrior | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return losses (B,) of images (B, C, H, W) in [0, 1]."""
        penalty, logits = self._asked(images)
        losses = [self.loss(answer, labels) for answer in (logits, *(student(images) for student in self.students))]
        identity = torch.stack(losses).mean(dim=0)
        return identity if penalty is None else identity + penalty

    def _asked(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Ask the target, once."""
        if self.prior is None:
            return None, self.target(images)
        features, logits = features_and_logits(self.target, images)
        return self.prior(features), logits
