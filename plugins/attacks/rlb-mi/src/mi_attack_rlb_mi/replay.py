"""What agents remember: one tensor for all of them, filled from the front."""

from __future__ import annotations

import torch
from torch import Tensor

from mi_attack_rlb_mi.agents import Batch

__all__ = ["Replay"]


class Replay:
    """The last ``capacity`` transitions of each of A agents, which take their steps together.

    chained: whether next states are kept, too; agents that do not bootstrap never look at them.
    """

    def __init__(self, n_agents: int, capacity: int, latent_dim: int, device: torch.device, *, chained: bool) -> None:
        self.capacity, self.filled, self._next = capacity, 0, 0
        width = (3 if chained else 2) * latent_dim
        self._latents = torch.zeros(n_agents, capacity, width, device=device)
        self._rewards = torch.zeros(n_agents, capacity, device=device)
        self._lasts = torch.zeros(n_agents, capacity, device=device) if chained else None
        self._dim = latent_dim
        self._rows = torch.arange(n_agents, device=device)[:, None]

    def add(self, states: Tensor, actions: Tensor, next_states: Tensor, rewards: Tensor, *, last: bool) -> None:
        """Remember one step of E environments: latents (A, E, d), rewards (A, E); last: whether the episodes ended.

        The oldest steps are forgotten first; E must divide the capacity.
        """
        places = slice(self._next, self._next + states.shape[1])
        latents = [states, actions] if self._lasts is None else [states, actions, next_states]
        self._latents[:, places] = torch.cat(latents, dim=2)
        self._rewards[:, places] = rewards
        if self._lasts is not None:
            self._lasts[:, places] = float(last)
        self._next = places.stop % self.capacity
        self.filled = min(self.capacity, max(self.filled, places.stop))

    def draw(self, shares: Tensor) -> Batch:
        """Return the transitions at these shares (A, B), in [0, 1), of what is remembered."""
        chosen = (shares * self.filled).long().clamp_max(self.filled - 1)
        latents, rewards = self._latents[self._rows, chosen], self._rewards[self._rows, chosen]
        states, actions, *following = latents.split(self._dim, dim=2)
        if self._lasts is None:
            return Batch(states=states, actions=actions, rewards=rewards)
        lasts = self._lasts[self._rows, chosen]
        return Batch(states=states, actions=actions, rewards=rewards, next_states=following[0], lasts=lasts)
