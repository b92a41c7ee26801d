"""How unlike two things are that are known of nodes, and how alike two nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Measure = Callable[[Tensor, Tensor], Tensor]
"""Of two matrices with one row for each node: a distance, ()."""


def mse(one: Tensor, two: Tensor) -> Tensor:
    """Return the mean squared difference of matrices of one shape (n, d)."""
    return functional.mse_loss(two, one)


def kl(one: Tensor, two: Tensor) -> Tensor:
    """Return the mean divergence of the second's rows from the first's, both as softmax; one shape (n, d)."""
    return functional.kl_div(two.log_softmax(dim=1), one.log_softmax(dim=1), reduction="batchmean", log_target=True)


def hsic(one: Tensor, two: Tensor) -> Tensor:
    """Return the negative linear Hilbert-Schmidt independence criterion of (n, d) and (n, e), over (n - 1) squared."""
    return -_aligned(one, two) / max(1, len(one) - 1) ** 2


def cka(one: Tensor, two: Tensor) -> Tensor:
    """Return 1 less the linear centred kernel alignment of (n, d) and (n, e), between 0 and 1."""
    scale = (_aligned(one, one) * _aligned(two, two)).clamp(min=1e-24).sqrt()
    return 1 - _aligned(one, two) / scale


def _aligned(one: Tensor, two: Tensor) -> Tensor:
    """Return the squared norm of the cross-covariance: tr(K H L H) of linear kernels K and L."""
    return ((one - one.mean(dim=0)).T @ (two - two.mean(dim=0))).square().sum()


MEASURES: Mapping[str, Measure] = {"mse": mse, "kl": kl, "hsic": hsic, "cka": cka}


def _cosine(values: Tensor) -> Tensor:
    unit = functional.normalize(values, dim=1)
    alike = unit @ unit.T
    alike.detach().fill_diagonal_(0)  # no gradient passes a rectifier at 0
    return alike.relu_()


def _sigmoid(values: Tensor) -> Tensor:
    own = torch.eye(len(values), dtype=torch.bool, device=values.device)
    return (values @ values.T).relu_().sigmoid().masked_fill(own, 0)


SIMILARITIES: Mapping[str, Callable[[Tensor], Tensor]] = {"cosine": _cosine, "sigmoid": _sigmoid}
"""Of values (n, d): how alike each two nodes are, (n, n), 0 on the diagonal."""


def undecided(shares: Tensor) -> Tensor:
    """Return the mean of -p log2 p over numbers between 0 and 1 (authors' code)."""
    found: Tensor = _Undecided.apply(shares)
    return found


class _Undecided(torch.autograd.Function):
    """Holds no matrix but its input until the gradient is asked for; operations in a row would hold three."""

    @staticmethod
    def forward(context: Any, shares: Tensor) -> Tensor:
        context.save_for_backward(shares)
        p = shares.clamp(*RANGE)
        return -p.log2().mul_(p).mean()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (shares,) = context.saved_tensors
        p = shares.clamp(*RANGE)
        is_clipped = p != shares
        slope = p.log2_().add_(1 / math.log(2)).mul_(-gradient / shares.numel())
        return slope.masked_fill_(is_clipped, 0)


RANGE = (1e-4, 1 - 1e-4)
"""To which numbers are clipped before their logarithm."""
