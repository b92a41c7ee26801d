"""What agents act on: latents become images, the target's scores become rewards, the best latent is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.kit.case_rows import tiled
from micore.kit.selection import stable_top_k
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
    best_latents (A, d), best_scores (A,): of the image that each agent's class is surest in, of all that were looked
    at; the score is -1 for an agent that had no answer. asked: images of each agent that the target has seen.
    """

    def __init__(
        self, generator: Callable[[Tensor], Tensor], target: Target, labels: Tensor, owners: Sequence[str],
        runtime: Runtime, *, rewarding: Rewarding, latent_dim: int, mix: float = 0.0,
    ) -> None:  # fmt: skip
        self._generator, self._target, self._runtime = generator, target, runtime
        self._labels, self._owners, self._rewarding, self._mix = labels, owners, rewarding, mix
        self.best_latents = torch.zeros(len(owners), latent_dim, device=labels.device)
        self.best_scores = torch.full((len(owners),), -1.0, device=labels.device)
        self.asked = 0

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
        """Ask the target about latents (A, E, d) and keep each agent's best; return its scores (A E, K).

        A score that is not a number counts as 0 and is never kept.
        """
        flat, each, tile = latents.flatten(0, 1), latents.shape[1], self._runtime.tile
        owners = [owner for owner in self._owners for _ in range(each)]
        scores = flat.new_full((len(flat), self._target.n_classes), torch.nan)
        try:
            for start in range(0, len(flat), tile):
                rows = slice(start, start + tile)
                ledger = self._target.ledger
                scores[rows] = tiled(self._ask, tile, flat[rows], ledger=ledger, owners=owners[rows])
        finally:  # a budget may have ended between two tiles
            self._keep(latents, scores)
        self.asked += each
        return scores.nan_to_num(nan=0.0)

    def _ask(self, latents: Tensor) -> Tensor:
        with self._runtime.autocast():
            images = self._generator(latents)
        return self._target.scores(images.float())

    def _keep(self, latents: Tensor, scores: Tensor) -> None:
        """Keep each agent's best latent so far, of these (A, E, d) with scores (A E, K), NaN where none is known."""
        n_agents, each = latents.shape[:2]
        sure = _of_label(scores, self._labels.repeat_interleave(each))
        found = stable_top_k(sure.view(n_agents, each), 1)
        values, own = found.scores[:, 0], latents.gather(1, found.indices[..., None].expand(-1, -1, latents.shape[2]))
        better = values > self.best_scores
        self.best_latents = torch.where(better[:, None], own[:, 0], self.best_latents)
        self.best_scores = torch.where(better, values, self.best_scores)
