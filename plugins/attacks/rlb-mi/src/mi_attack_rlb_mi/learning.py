"""The loop in which all agents of all cases play, remember and learn, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_attack_rlb_mi.agents import Agents, SacSettings
from mi_attack_rlb_mi.environments import Environments
from mi_attack_rlb_mi.replay import Replay
from micore.contracts import Case
from micore.errors import BudgetExceeded
from micore.kit.evolution import spaced
from micore.kit.search import LOOK_EVERY, Found, RowStatus, Stand
from micore.runtime import Random, Runtime

__all__ = ["Learning"]

Numbers = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How long agents play and learn.

    rounds: steps of all environments; updates: gradient steps after each; tests: test images after each episode;
    memory: steps that an agent remembers, at most; stands: so many earlier stands are kept in ``Found.course``.
    """

    sac: SacSettings
    rounds: int
    episode_length: int
    environments: int
    updates: int
    tests: int
    batch_size: int
    memory: int
    stands: int = 0

    def run(self, environments: Environments, cases: Sequence[Case], restarts: int, runtime: Runtime) -> Found:
        """Train ``restarts`` agents for each case; a budget that ends does not raise: `Found.complete` tells."""
        streams = [runtime.rng("agent", case.id, restart) for case in cases for restart in range(restarts)]
        play, kept = _Play(self, environments, streams, runtime), spaced(self.rounds, self.stands)
        complete = True
        with runtime.progress.track("training the agents", self.rounds) as report:
            try:
                for number, numbers in enumerate(self._numbers(cases, restarts, runtime)):
                    play.round(number, numbers)
                    if number in kept:
                        play.remember()
                    report(number + 1)
            except BudgetExceeded:
                complete = False
        return play.found(complete=complete)

    def _numbers(self, cases: Sequence[Case], restarts: int, runtime: Runtime) -> Iterator[Numbers]:
        """Yield each round's random numbers (A, ...), each agent's from streams of its own."""
        sac, each = self.sac, self.updates * self.batch_size
        normal = {
            "states": (self.environments, sac.latent_dim), "actions": (self.environments, sac.noise_dim),
            "tests": (self.tests, sac.latent_dim),
            "updates": (each, sac.noise_dim * (2 if sac.bootstrap else 1)),
        }  # fmt: skip
        agents = [(case.id, restart) for case in cases for restart in range(restarts)]
        streams = {name: [runtime.rng(name, *agent) for agent in agents] for name in (*normal, "remembered")}
        for _ in range(self.rounds):
            numbers = {name: _stacked(streams[name], shape) for name, shape in normal.items()}
            shares = torch.stack([stream.uniform((each,)) for stream in streams["remembered"]])
            yield {**numbers, "remembered": shares}

    @property
    def capacity(self) -> int:
        """Steps that an agent remembers: a multiple of the environments, no more than there are."""
        return min(self.rounds, self.memory // self.environments) * self.environments


def _stacked(streams: Sequence[Random], shape: Sequence[int]) -> Tensor:
    return torch.stack([stream.normal(shape) for stream in streams])


class _Play:
    """Where all agents are."""

    def __init__(
        self, learning: Learning, environments: Environments, streams: Sequence[Random], runtime: Runtime
    ) -> None:
        sac = learning.sac
        self._learning, self._environments = learning, environments
        self._agents = Agents(streams, sac)
        self._replay = Replay(len(streams), learning.capacity, sac.latent_dim, runtime.device, chained=sac.bootstrap)
        self._states: Tensor | None = None
        self._looks: list[Tensor] = []
        self._course: list[Stand] = []

    def round(self, number: int, numbers: Numbers) -> None:
        """Take one step in all environments, learn from what is remembered, and test at the end of an episode."""
        learning = self._learning
        last = (number + 1) % learning.episode_length == 0
        self._step(numbers, last=last)
        if number % LOOK_EVERY == 0:
            self._looks.append(self._rewards.mean(dim=1))
        self._learn(numbers)
        if last and learning.tests:
            self._environments.look(self._agents.intend(numbers["tests"]))

    def _step(self, numbers: Numbers, *, last: bool) -> None:
        states = numbers["states"] if self._states is None else self._states
        actions = self._agents.act(states, numbers["actions"])
        next_states, self._rewards = self._environments.step(states, actions)
        self._replay.add(states, actions, next_states, self._rewards, last=last)
        self._states = None if last else next_states

    def _learn(self, numbers: Numbers) -> None:
        learning = self._learning
        if self._replay.filled <= learning.batch_size:
            return
        for part in range(learning.updates):
            rows = slice(part * learning.batch_size, (part + 1) * learning.batch_size)
            batch = self._replay.draw(numbers["remembered"][:, rows])
            self._agents.update(batch, numbers["updates"][:, rows])

    def remember(self) -> None:
        """Keep where the search stands."""
        known = self._environments
        queries = torch.full_like(known.best_scores, known.asked, dtype=torch.int64)
        self._course.append(Stand(values=known.best_latents, losses=-known.best_scores, queries=queries))

    def found(self, *, complete: bool) -> Found:
        """Return the best latents of the agents, and how their rewards rose."""
        known = self._environments
        looks, n = [look.cpu() for look in self._looks], len(known.best_scores)
        return Found(
            values=known.best_latents, losses=-known.best_scores,
            steps=torch.full((n,), len(looks), device=known.best_scores.device),
            statuses=[_status(seen, complete) for seen in (known.best_scores >= 0).tolist()],
            history=torch.stack(looks, dim=1) if looks else torch.empty(n, 0), course=tuple(self._course),
        )  # fmt: skip


def _status(seen: bool, complete: bool) -> RowStatus:
    """Tell how an agent ended: one that asked to the end and had no answer that is a number has failed."""
    if seen:
        return RowStatus.DONE if complete else RowStatus.STOPPED
    return RowStatus.FAILED if complete else RowStatus.WAITING
