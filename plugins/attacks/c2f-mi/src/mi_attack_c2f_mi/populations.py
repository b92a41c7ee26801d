"""What C2F-MI's second stage needs beside `micore.kit.evolution`: populations, their losses, and the fading steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_image.stylegan_prior import StyleGanPrior
from micore.contracts import Case
from micore.kit.case_rows import tiled
from micore.kit.selection import stable_top_k
from micore.runtime import Runtime

__all__ = [
    "FRESH_CODES",
    "StyleSource",
    "answer_losses",
    "best_members",
    "bred",
    "fading",
    "neighbour_means",
]

BRED_WEIGHTS, BRED_SHARE, FRESH_CODES = (0.25, 0.25, 0.5), 0.7, 3
"""A further member: so much of a mixture of three members, the rest of the mean of three new codes (authors' code)."""


NEARLY_SURE = 1e-3
"""Below this 1 - p is taken from the other scores; in float32 the difference itself is rounded to steps of 6e-8."""


@dataclass(frozen=True, kw_only=True)
class StyleSource:
    """Draws truncated style codes of a prior for each case, from the case's own stream.

    labels of a conditional prior are drawn uniformly.
    """

    prior: StyleGanPrior
    psi: float
    cutoff: int | None
    runtime: Runtime

    def draw(self, cases: Sequence[Case], shape: tuple[int, ...], purpose: str) -> Tensor:
        """Return codes (C, *shape, w_dim); none of them where ``shape`` has a 0."""
        if 0 in shape:
            return torch.empty(len(cases), *shape, self.prior.w_dim, device=self.runtime.device)
        streams = [self.runtime.rng(purpose, case.id) for case in cases]
        latents = torch.stack([stream.normal((*shape, self.prior.latent_dim)) for stream in streams])
        given = [latents.flatten(0, -2)]
        if self.prior.n_classes:
            given.append(torch.stack([stream.integers(self.prior.n_classes, shape) for stream in streams]).flatten())
        return tiled(self._map, self.runtime.tile, *given).view(len(cases), *shape, -1)

    def _map(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.prior.map(latents, labels, psi=self.psi, cutoff=self.cutoff)[:, 0]


def neighbour_means(codes: Tensor) -> Tensor:
    """Return the means of neighbouring codes: (..., n + 1, w_dim) to (..., n, w_dim)."""
    return (codes[..., 1:, :] + codes[..., :-1, :]) / 2


def best_members(members: Tensor, losses: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` best members (N, count, D) of (N, M, D) and their losses; NaN is the worst loss."""
    best = stable_top_k(-losses, count).indices
    chosen = members.gather(1, best[..., None].expand(-1, -1, members.shape[2]))
    return chosen, losses.gather(1, best)


def bred(members: Tensor, throws: Tensor, fresh: Tensor) -> Tensor:
    """Return further members (N, M, D): 0.7 of a mixture of three members, 0.3 of the mean of three new codes.

    members: (N, P, D); throws: (N, M, 3) in [0, 1), which members are mixed; fresh: (N, M, 3, D).
    """
    size = members.shape[1]
    indices = (throws * size).long().clamp(max=size - 1)
    mixture = torch.zeros_like(fresh[:, :, 0])
    for weight, chosen in zip(BRED_WEIGHTS, indices.unbind(2), strict=True):
        mixture = mixture + weight * members.gather(1, chosen[..., None].expand(-1, -1, members.shape[2]))
    first, second, third = fresh.unbind(2)
    return BRED_SHARE * mixture + (1 - BRED_SHARE) * (first + second + third) / FRESH_CODES


def answer_losses(answers: Tensor, labels: Tensor, top: int | None) -> Tensor:
    """Return losses (B,) of answers (B, K): 1 - p of the label, in [0, 1]; more where it is not among the answers.

    A label that has no score, or is not among the ``top`` best, costs 1 and the sum of the best scores: the less sure
    the target is of other classes, the better.
    """
    own = answers.gather(1, labels[:, None])
    better = (answers > own).sum(dim=1)
    count = answers.shape[1] if top is None else min(top, answers.shape[1])
    told = (own[:, 0] > 0) & (better < count)
    missing = 1 + stable_top_k(answers, count).scores.sum(dim=1)
    return torch.where(told, _doubt(answers, labels), missing)


def _doubt(answers: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - p of the label (B,), near 0 as the sum of the other scores: that does not vanish where p rounds to 1.

    Of a part of the scores, the sum is at most 1 - p, so that it ranks below all that is less sure.
    """
    doubt = 1 - answers.gather(1, labels[:, None])[:, 0]
    others = answers.scatter(1, labels[:, None], 0.0).sum(dim=1)
    return torch.where((doubt < NEARLY_SURE) & (others > 0), others.clamp(max=NEARLY_SURE), doubt)


def fading(difference: float, generations: int, *, last: int, over: int) -> Callable[[int], float]:
    """Return the scale of differences by generation: constant, and in the last ones what is left of them, / ``over``.

    The authors: 0.1, and in the last 30 of G generations 0.1 (G - i) / 50.
    """

    def scale(generation: int) -> float:
        left = generations - generation
        return difference * left / over if left <= last else difference

    return scale
