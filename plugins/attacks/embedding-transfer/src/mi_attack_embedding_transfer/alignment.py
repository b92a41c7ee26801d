"""A linear map between two spaces of embeddings, from few pairs: ridge regression (ALGEN, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HELD_OUT = 5
"""One of so many pairs is held out to choose the penalty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Maps embeddings of the target (N, d) to the adversary's space: ``own_mean + (e - mean) / scale @ matrix``.

    Float64, on the CPU. penalty: the ridge's; cosine: to the true ones on held-out pairs, 0 where there were too few.
    """

    mean: Tensor
    scale: Tensor
    own_mean: Tensor
    matrix: Tensor
    penalty: float = 0.0
    cosine: float = 0.0

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the aligned embeddings, of unit length, float32 (N, width)."""
        found = self.own_mean + (embeddings.double() - self.mean) / self.scale @ self.matrix
        return functional.normalize(found, dim=1).float()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Alignment:
        """Read plain data."""
        mean, scale, own_mean, matrix = (state[name].cpu() for name in ("mean", "scale", "own_mean", "matrix"))
        return cls(
            mean=mean, scale=scale, own_mean=own_mean, matrix=matrix, penalty=float(state["penalty"]),
            cosine=float(state["cosine"]),
        )  # fmt: skip


def fit_alignment(embeddings: Tensor, own: Tensor, penalties: Sequence[float]) -> Alignment:
    """Fit the map on pairs: embeddings of the target (N, d) and the adversary's own of the same texts (N, width).

    The penalty with the highest cosine on a fifth of the pairs is taken, and all pairs are fitted with it. With too few
    pairs to hold any out, the largest one is.
    """
    held = torch.arange(len(embeddings)) % HELD_OUT == HELD_OUT - 1
    if not bool(held.any()):
        return _fitted(embeddings, own, max(penalties))
    tried = [_fitted(embeddings[~held], own[~held], penalty) for penalty in penalties]
    cosines = [float(functional.cosine_similarity(fit(embeddings[held]), own[held]).mean()) for fit in tried]
    best = max(range(len(tried)), key=lambda index: cosines[index])
    return _fitted(embeddings, own, penalties[best], cosines[best])


def _fitted(embeddings: Tensor, own: Tensor, penalty: float, cosine: float = 0.0) -> Alignment:
    """Fit with one penalty. Vectors are centred, and scaled to a mean square length of 1, so that it means the same."""
    inputs, outputs = embeddings.double().cpu(), own.double().cpu()
    mean, own_mean = inputs.mean(dim=0), outputs.mean(dim=0)
    centred = inputs - mean
    scale = centred.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
    return Alignment(
        mean=mean, scale=scale, own_mean=own_mean, matrix=ridge(centred / scale, outputs - own_mean, penalty),
        penalty=penalty, cosine=cosine,
    )  # fmt: skip


def ridge(inputs: Tensor, outputs: Tensor, penalty: float) -> Tensor:
    """Return ``pinv(X'X + penalty I) X'Y`` of X (N, d) and Y (N, width), (d, width).

    By singular values: with penalty 0 it is the least-squares solution of least norm.
    """
    left, values, right = torch.linalg.svd(inputs, full_matrices=False)
    smallest = values.max() * max(inputs.shape) * torch.finfo(values.dtype).eps
    shares = torch.where(values > smallest, values / (values.square() + penalty), 0.0)
    found: Tensor = right.T @ (shares[:, None] * (left.T @ outputs))
    return found
