"""Rows of probabilities: how masked scores become some again, and how the answer's label is kept."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from micore.contracts import Defense


class ScoreMask(Defense):
    """Base of defenses that change the scores of each sample by themselves; what each keeps, with its defaults.

    differentiable: gradients with respect to the scores pass, almost everywhere, and are of use. stochastic: random
    numbers go in. order_preserving: no two scores change places, though they may become equal. argmax_preserving: the
    most likely class stays, also where scores become equal.
    """

    differentiable: ClassVar[bool]
    stochastic: ClassVar[bool] = False
    order_preserving: ClassVar[bool]
    argmax_preserving: ClassVar[bool]


def in_full_precision(scores: Tensor) -> Tensor:
    """Return scores in float32 at least: sixteen bits round them coarser than most of these defenses."""
    return scores if scores.dtype == torch.float64 else scores.float()


def only_the_label(scores: Tensor) -> Tensor:
    """Return 1 for the most likely class of each row (N, K) and 0 for the others."""
    return functional.one_hot(scores.argmax(dim=1), scores.shape[1]).to(scores.dtype)


def normalised(weights: Tensor, scores: Tensor) -> Tensor:
    """Return weights (N, K), none below 0, as rows that add up to 1; rows of zeros become the label of the scores."""
    totals = weights.sum(dim=1, keepdim=True)
    empty = totals <= 0
    return torch.where(empty, only_the_label(scores), weights / totals.masked_fill(empty, 1))


def with_the_label_of(scores: Tensor, masked: Tensor) -> Tensor:
    """Return masked (N, K) with the most likely class of the scores as its own most likely one.

    Another class that is ahead changes places with it; one that is level is passed by the least step that survives.
    """
    label, ahead = scores.argmax(dim=1, keepdim=True), masked.argmax(dim=1, keepdim=True)
    own, highest = masked.gather(1, label), masked.gather(1, ahead)
    swapped = masked.scatter(1, ahead, own).scatter(1, label, highest)
    rest = swapped.scatter(1, label, -1.0).amax(dim=1, keepdim=True)
    numbers = torch.finfo(masked.dtype)
    least = (rest * (1 + 4 * numbers.eps)).clamp(min=numbers.tiny)
    return swapped.scatter(1, label, torch.maximum(highest, least))
