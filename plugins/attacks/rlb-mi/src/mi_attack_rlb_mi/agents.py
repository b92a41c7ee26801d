"""Soft actor-critic for many agents at a time: one update of all of them, none of which sees another.

Sources: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (arXiv:1812.05905), equations 5 to 7 and 18;
sizes and rates of Han et al. (CVPR 2023). All parameters are stacked over agents, and Adam works on each number by
itself, so each agent learns as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from mi_attack_rlb_mi.networks import StackedMlp
from micore.runtime import Random

__all__ = ["Agents", "Batch", "Noise", "SacSettings", "squashed"]

Noise = Literal["dimension", "scalar"]
LOG_STD = (-20.0, 2.0)
N_CRITICS = 2


@dataclass(frozen=True, kw_only=True)
class SacSettings:
    """How agents look and learn; the defaults are the authors' code of RLB-MI.

    noise: one number for each dimension of an action, or one for all (then log-probabilities are averages over
    dimensions). bootstrap: whether what follows a transition has a value; not in episodes of one step.
    """

    latent_dim: int = 100
    hidden: int = 256
    learning_rate: float = 5e-4
    discount: float = 0.99
    polyak: float = 0.01
    noise: Noise = "dimension"
    bootstrap: bool = False

    @property
    def noise_dim(self) -> int:
        """Random numbers of one action."""
        return self.latent_dim if self.noise == "dimension" else 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Remembered transitions of all agents: states, actions and next states (A, B, d), rewards and lasts (A, B).

    lasts: 1 where the episode ended; next_states and lasts are None for agents that do not bootstrap.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor | None = None
    lasts: Tensor | None = None


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions tanh(mean + std noise) and the log density of each of their coordinates, both (..., d)."""
    raw = mean + log_std.exp() * noise
    normal = -noise.square() / 2 - log_std - math.log(2 * math.pi) / 2
    # log(1 - tanh(x)^2), without the loss of digits at large |x|
    slope = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
    return raw.tanh(), normal - slope


class Agents:
    """A agents: an actor, two critics and a temperature each."""

    def __init__(self, streams: Sequence[Random], settings: SacSettings) -> None:
        """Draw the parameters of one agent from each stream."""
        size, hidden = settings.latent_dim, settings.hidden
        self.settings = settings
        self.actor = StackedMlp.draw(streams, (size, hidden, hidden, 2 * size))
        critic_streams = [stream for stream in streams for _ in range(N_CRITICS)]
        self.critics = StackedMlp.draw(critic_streams, (2 * size, hidden, hidden, 1))
        self.slow_critics = self.critics.frozen_copy()
        self.log_temperature = torch.zeros(len(streams), 1, device=self.actor.weights[0].device, requires_grad=True)
        self._adams = [Adam(part, settings.learning_rate) for part in self._parts()]

    def _parts(self) -> list[list[Tensor]]:
        return [self.critics.parameters, self.actor.parameters, [self.log_temperature]]

    def policy(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (A, B, d) in (-1, 1) and their log-probabilities (A, B); noise: (A, B, noise_dim)."""
        mean, log_std = self.actor(states).chunk(2, dim=2)
        actions, densities = squashed(mean, log_std.clamp(*LOG_STD), noise)
        per_dimension = self.settings.noise == "dimension"
        return actions, densities.sum(dim=2) if per_dimension else densities.mean(dim=2)

    @torch.no_grad()
    def act(self, states: Tensor, noise: Tensor) -> Tensor:
        """Return actions (A, B, d)."""
        return self.policy(states, noise)[0]

    @torch.no_grad()
    def intend(self, states: Tensor) -> Tensor:
        """Return what the policy means to do, without noise: actions (A, B, d)."""
        return self.actor(states)[..., : self.settings.latent_dim].tanh()

    def update(self, batch: Batch, noise: Tensor) -> None:
        """Take one step of critics, actor and temperature. noise: (A, B, 2 or 1 x noise_dim), 2 to bootstrap."""
        with torch.enable_grad():
            own, following = noise[..., : self.settings.noise_dim], noise[..., self.settings.noise_dim :]
            self._descend(0, self._critic_loss(batch, following))
            actions, log_probs = self.policy(batch.states, own)
            values = self._values(self.critics, batch.states, actions).amin(dim=1)
            self._descend(1, (self._temperature * log_probs - values).mean(dim=1).sum())
            missing = log_probs.detach() - self.settings.latent_dim  # the wanted entropy is -d
            self._descend(2, -(self.log_temperature * missing).mean(dim=1).sum())
        if self.settings.bootstrap:
            self.slow_critics.follow(self.critics, self.settings.polyak)

    @property
    def _temperature(self) -> Tensor:
        return self.log_temperature.detach().exp()

    def _critic_loss(self, batch: Batch, noise: Tensor) -> Tensor:
        wanted = self._wanted(batch, noise)
        values = self._values(self.critics, batch.states, batch.actions)
        return (values - wanted[:, None]).square().mean(dim=2).sum()

    @torch.no_grad()
    def _wanted(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return what the critics should say of a transition, (A, B)."""
        if batch.next_states is None or batch.lasts is None:
            return batch.rewards
        actions, log_probs = self.policy(batch.next_states, noise)
        values = self._values(self.slow_critics, batch.next_states, actions).amin(dim=1)
        soft = values - self._temperature * log_probs
        return batch.rewards + self.settings.discount * (1 - batch.lasts) * soft

    def _values(self, critics: StackedMlp, states: Tensor, actions: Tensor) -> Tensor:
        """Return both critics' values (A, 2, B)."""
        inputs = torch.cat([states, actions], dim=2).repeat_interleave(N_CRITICS, dim=0)
        values: Tensor = critics(inputs)[..., 0].unflatten(0, (-1, N_CRITICS))
        return values

    def _descend(self, part: int, loss: Tensor) -> None:
        """Move one part of the agents: the others, through which the loss may pass, get no gradient."""
        parameters = self._parts()[part]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self._adams[part].step()
