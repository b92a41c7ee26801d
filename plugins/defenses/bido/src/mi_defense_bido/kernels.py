"""Kernels of a batch, and how much two kernels tell of each other: normalised HSIC and COCO.

A kernel is (m, m) for a batch of m; functions take stacks of kernels (..., m, m) and work on all at once.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

SMALLEST_NORM = 1e-30  # the derivative of the square root is infinite at 0


@cache
def exact_dtype(device: torch.device) -> torch.dtype:
    """Return float64 where the device has it, else float32.

    The eigenvalues of a centred kernel are of the order of the ridge that is added to them.
    """
    try:
        return torch.zeros((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):  # what a backend without the type raises
        return torch.float32


def squared_distances(rows: Tensor) -> Tensor:
    """Return the squared Euclidean distances (m, m) of rows (m, d), none below 0."""
    moved = rows - rows.mean(dim=0)  # smaller numbers, smaller rounding errors
    products = moved @ moved.T
    lengths = products.diagonal()
    return (lengths[:, None] + lengths - 2 * products).clamp(min=0)


def gaussian_kernel(rows: Tensor, bandwidth: float) -> Tensor:
    """Return ``exp(-D / (2 s^2 d))`` for rows (m, d) and their squared distances D."""
    return (-squared_distances(rows) / (2 * bandwidth**2 * rows.shape[1])).exp()


def label_kernel(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the linear kernel of one-hot labels: 1 where two samples are of one class."""
    return (labels[:, None] == labels).to(dtype)


def centred(kernels: Tensor) -> Tensor:
    """Return ``H K H`` with ``H = I - 1/m``."""
    rows = kernels - kernels.mean(dim=-1, keepdim=True)
    return rows - rows.mean(dim=-2, keepdim=True)


def regularised(kernels: Tensor, epsilon: float) -> Tensor:
    """Return ``R = C (C + epsilon m I)^-1`` for centred kernels C."""
    m = kernels.shape[-1]
    one = torch.eye(m, dtype=kernels.dtype, device=kernels.device)
    ridge = epsilon * m
    # R = I - ridge (C + ridge I)^-1: the gradient of an inverse is two products, that of a solution solves again.
    # The ridge rules singular matrices out; a check would make an accelerator wait.
    inverse: Tensor = torch.linalg.inv_ex(kernels + ridge * one)[0]
    return one - ridge * inverse


def normalised_hsic(one: Tensor, other: Tensor) -> Tensor:
    """Return ``tr(R_A R_B)`` for matrices from `regularised`: from 0 to m - 1."""
    return (one * other.transpose(-1, -2)).sum(dim=(-2, -1))


def coco(one: Tensor, other: Tensor, norm: Literal["fro", "spectral"]) -> Tensor:
    """Return ``sqrt(||A B||) / m`` for centred kernels: the constrained covariance, if the norm is the spectral one."""
    size = torch.linalg.matrix_norm(one @ other, ord="fro" if norm == "fro" else 2)
    found: Tensor = size.clamp(min=SMALLEST_NORM).sqrt() / one.shape[-1]
    return found
