"""Choose the best candidates, the same ones every time.

``torch.topk`` leaves the order of equal scores to the kernel, so the same bank can start different attacks
on different machines. Everything here breaks ties by the lowest index.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Selection", "robust_scores", "robust_top_k", "stable_top_k", "top_k_per_class"]


class Selection(NamedTuple):
    """Chosen candidates, best first: ``scores`` (..., k) and their ``indices`` (..., k)."""

    scores: Tensor
    indices: Tensor


def stable_top_k(scores: Tensor, k: int) -> Selection:
    """Return the ``k`` largest of the last dimension of ``scores`` (..., N), ties by the lowest index.

    NaN counts as the worst score: a candidate that broke the model must never win.
    """
    if scores.ndim < 1 or not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"k must be between 1 and the number of candidates, got {k} of {tuple(scores.shape)}")
    if scores.is_floating_point():
        scores = scores.masked_fill(scores.isnan(), -math.inf)
    ordered, indices = scores.sort(dim=-1, descending=True, stable=True)
    return Selection(ordered[..., :k], indices[..., :k])


def top_k_per_class(scores: Tensor, k: int, classes: Tensor | None = None) -> Selection:
    """Return the ``k`` best candidates of each class from ``scores`` (N candidates, K classes).

    The result is (C, k), rows in the order of ``classes`` (C,) or of all K classes. One candidate may serve
    several classes, and a class's row depends on its own column only, not on which other classes are asked
    for.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be (candidates, classes), got {tuple(scores.shape)}")
    columns = scores if classes is None else scores[:, classes]
    return stable_top_k(columns.T, k)


def robust_scores(view_scores: Tensor, *, quantile: float | None = None) -> Tensor:
    """Reduce ``view_scores`` (V views, ...) to one score (...) that no single lucky view can make.

    The default is the mean over randomly transformed views (Struppek et al., "Plug & Play Attacks", ICML
    2022). A ``quantile`` is stricter: 0 takes the worst view. NaN in any view makes the score NaN, hence
    the worst.
    """
    if view_scores.ndim < 2 or not len(view_scores) or not view_scores.is_floating_point():
        found = f"{view_scores.dtype} {tuple(view_scores.shape)}"
        raise ValueError(f"view_scores must be floating point (V >= 1, ...), got {found}")
    wide = view_scores.to(torch.promote_types(view_scores.dtype, torch.float32))
    if quantile is None:
        return wide.mean(dim=0)
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
    ordered = wide.sort(dim=0).values  # torch.quantile refuses more than 16 million entries
    chosen = ordered[int(quantile * (len(wide) - 1))]
    return torch.where(wide.isnan().any(dim=0), torch.nan, chosen)


def robust_top_k(
    view_scores: Tensor, k: int, classes: Tensor | None = None, *, quantile: float | None = None
) -> Selection:
    """Return the ``k`` best candidates of each class under scores reduced over views.

    ``view_scores`` (V views, N candidates, K classes) go through :func:`robust_scores`, then
    :func:`top_k_per_class`.
    """
    if view_scores.ndim != 3:
        raise ValueError(f"view_scores must be (views, candidates, classes), got {tuple(view_scores.shape)}")
    return top_k_per_class(robust_scores(view_scores, quantile=quantile), k, classes)
