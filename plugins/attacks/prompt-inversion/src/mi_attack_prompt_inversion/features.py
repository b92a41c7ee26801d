"""What a decoder is shown of an answer: log-probabilities without what all answers share, whole or mapped linearly.

The log-probabilities of a language model lie in an affine space of hardly more dimensions than its state has (Nazir et
al., 2025, arXiv:2506.17090): their principal components, each scaled to the same spread, hold all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from micore.runtime import Runtime

FLOOR = 1e-9
"""Least probability: interfaces round, or leave tokens out."""

Form = Literal["components", "groups", "projection", "whole"]

FAINT = 1e-3
"""Components with less of the largest one's spread are rounding."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """A map of answers.

    mean: mean log-probabilities of public answers, (V,); scale: their spread; matrix: linear map (V, d), None:
    all of them; groups: how many conditions the vocabulary is cut into.
    """

    mean: Tensor
    scale: float
    matrix: Tensor | None
    groups: int

    def __call__(self, answers: Tensor) -> Tensor:
        """Return the features (N, d) of distributions (N, V)."""
        centred = (log_probabilities(answers) - self.mean.to(answers.device)) / self.scale
        return centred if self.matrix is None else centred @ self.matrix.to(answers.device)

    @property
    def width(self) -> int:
        """Numbers of a feature vector."""
        return len(self.mean) if self.matrix is None else self.matrix.shape[1]

    def conditions(self, places: int) -> dict[str, tuple[int, int]]:
        """Return the decoder's conditions: numbers and places of each."""
        sizes = self._sizes()
        return {f"group-{index}": (size, places // len(sizes)) for index, size in enumerate(sizes)}

    def values(self, features: Tensor) -> Mapping[str, Tensor]:
        """Return features (N, d) by condition."""
        return {f"group-{index}": part for index, part in enumerate(features.split(self._sizes(), dim=1))}

    def _sizes(self) -> list[int]:
        each = -(-self.width // self.groups)
        return [min(each, self.width - start) for start in range(0, self.width, each)]

    def state(self) -> dict[str, Any]:
        """Return the map as plain data."""
        matrix = {} if self.matrix is None else {"matrix": self.matrix}
        return {"mean": self.mean, "scale": self.scale, "groups": self.groups, **matrix}


def log_probabilities(answers: Tensor) -> Tensor:
    """Return log-probabilities in nats, float32, none below that of `FLOOR`."""
    return answers.float().clamp(min=FLOOR).log()


def fitted(answers: Tensor, form: Form, places: int, dimensions: int, runtime: Runtime) -> Features:
    """Fit the map on public answers, distributions (N, V) on the CPU."""
    logs = log_probabilities(answers)
    mean = logs.mean(dim=0)
    scale = float((logs - mean).std().clamp(min=1e-6))
    matrix = None
    if form == "projection":
        drawn = runtime.rng("projection", dimensions).normal((len(mean), dimensions)).cpu()
        matrix = drawn / len(mean) ** 0.5
    if form == "components":
        matrix = components((logs - mean) / scale, dimensions)
    return Features(mean=mean, scale=scale, matrix=matrix, groups=places if form == "groups" else 1)


def components(rows: Tensor, limit: int) -> Tensor:
    """Return the map (V, d) of centred rows (N, V) to their first principal components, each of variance 1.

    d: at most ``limit``, and only components that are more than rounding.
    """
    variances, directions = torch.linalg.eigh((rows.T @ rows).double() / max(1, len(rows) - 1))
    spreads = variances.clamp(min=0).sqrt().flip(0)[:limit]
    kept = int((spreads > FAINT * spreads[0]).sum())
    found: Tensor = (directions.flip(1)[:, :kept] / spreads[:kept].clamp(min=1e-12)).float()
    return found


def restored(state: Mapping[str, Any]) -> Features:
    """Return a map that was kept as plain data."""
    return Features(
        mean=state["mean"], scale=float(state["scale"]), matrix=state.get("matrix"), groups=int(state["groups"])
    )
