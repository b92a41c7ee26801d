"""What agents act on: latents become images, the target's scores become rewards, the best image is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.errors import BudgetExceeded
from micore.kit.case_rows import tiled
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["Environments", "Rewarding"]

LEAST = 1e-7
"""Probabilities and margins below this count as this, before a logarithm (authors' code, of the margin)."""


@dataclass(frozen=True, kw_only=True)
class Rewarding:
    """Weights of the reward (section 4 of the paper; authors' code): logarithms of two scores and of a margin."""

    state: float = 2.0
    action: float = 2.0
    margin: float = 8.0

    def __call__(self, next_scores: Tensor, action_scores: Tensor, labels: Tensor) -> Tensor:
        """Return the rewards (N,) of the scores (N, K) of next state and action, for labels (N,)."""
        of_state, of_action = (_of_label(scores, labels) for scores in (next_scores, action_scores))
        others = next_scores.scatter(1, labels[:, None], -1.0).amax(dim=1)
        parts = ((self.state, of_state), (self.action, of_action), (self.margin, of_state - others))
        return torch.stack([weight * value.clamp_min(LEAST).log() for weight, value in parts]).sum(dim=0)


def _of_label(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.gather(1, labels[:, None])[:, 0]


class Environments:
    """E environments of each of A agents.

    labels: the agents' classes (A,); owners: their case ids. mix: share of the old state in the next one; at 0 the
    next state is the action, and one image shows both.
    """

    def __init__(
        self, generator: Callable[[Tensor], Tensor], target: Target, labels: Tensor, owners: Sequence[str],
        runtime: Runtime, *, rewarding: Rewarding, mix: float = 0.0,
    ) -> None:  # fmt: skip
        self._generator, self._target, self._runtime = generator, target, runtime
        self._labels, self._owners, self._rewarding, self._mix = labels, owners, rewarding, mix
        self.best_scores = torch.full((len(owners),), -1.0, device=labels.device)
        self._images: Tensor | None = None
        self._latents: Tensor | None = None

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return next states (A, E, d) and rewards (A, E) of states and actions (A, E, d).

        Raises: BudgetExceeded; what the target still answered has been looked at.
        """
        next_states = (1 - self._mix) * actions + self._mix * states if self._mix else actions
        scores = self.look(next_states)
        of_actions = self.look(actions) if self._mix else scores
        labels = self._labels.repeat_interleave(states.shape[1])
        return next_states, self._rewarding(scores, of_actions, labels).view(states.shape[:2])

    def look(self, latents: Tensor) -> Tensor:
        """Ask the target about latents (A, E, d), keep the image that each agent's class is surest in: (A E, K)."""
        flat, tile = latents.flatten(0, 1), self._runtime.tile
        images = tiled(self._generator, tile, flat)
        owners = [owner for owner in self._owners for _ in range(latents.shape[1])]
        parts: list[Tensor] = []
        try:
            for start in range(0, len(flat), tile):
                rows = slice(start, start + tile)
                ledger = self._target.ledger
                parts.append(tiled(self._target.scores, tile, images[rows], ledger=ledger, owners=owners[rows]))
        finally:  # a budget may have ended between two tiles
            if parts:
                self._keep(latents, images, torch.cat(parts))
        return torch.cat(parts)

    def _keep(self, latents: Tensor, images: Tensor, scores: Tensor) -> None:
        """Keep each agent's best image so far, of those that ``scores`` (M, K), M <= A E, tell about."""
        n_agents, each = latents.shape[:2]
        labels = self._labels.repeat_interleave(each)
        sure = torch.full((n_agents * each,), -1.0, device=scores.device)
        sure[: len(scores)] = _of_label(scores, labels[: len(scores)])
        values, places = sure.view(n_agents, each).max(dim=1)
        rows = torch.arange(n_agents, device=scores.device) * each + places
        found, own = images[rows], latents.flatten(0, 1)[rows]
        better = values > self.best_scores
        if self._images is None or self._latents is None:
            self._images, self._latents = found, own
        self._images = torch.where(better.view(-1, 1, 1, 1), found, self._images)
        self._latents = torch.where(better[:, None], own, self._latents)
        self.best_scores = torch.where(better, values, self.best_scores)

    def found_images(self) -> Tensor:
        """Return each agent's best image (A, C, H, W); see `best_scores` for those that have none, of score -1.

        Raises: BudgetExceeded when the target answered nothing.
        """
        return _answered(self._images)

    def found_latents(self) -> Tensor:
        """Return the latents (A, d) of these images. Raises: BudgetExceeded when the target answered nothing."""
        return _answered(self._latents)


def _answered(kept: Tensor | None) -> Tensor:
    if kept is None:
        raise BudgetExceeded("the budget ended before the first answer", hint="raise --budget-queries")
    return kept
