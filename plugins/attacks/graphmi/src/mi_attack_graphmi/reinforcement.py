"""An agent that builds a graph edge by edge, rewarded as the target answers more of the known classes.

The agent chooses one node, then the other. What choices are worth is learned by Q-learning (Mnih et al., Nature 2015)
with a replay memory and a slowly following copy of the networks; choices are split in two as in RL-S2V (Dai et al.,
ICML 2018), so that each is among n nodes instead of n (n - 1) / 2 pairs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.attack import Found
from mi_graph.batch import Graphs
from mi_graph.evidence import Known, Labelled
from mi_graph.graphs import Graph, n_pairs, ordered, values_of_pairs
from micore.contracts import Case, Config
from micore.errors import BudgetExceeded, UsageError
from micore.runtime import Runtime

LARGEST = 150
"""Nodes of the largest graph: each edge of each episode asks about all labelled nodes."""


class AgentConfig(Config):
    """Settings of the agent."""

    episodes: int = Field(30, ge=1, description="reinforcement: graphs that the agent builds")
    width: int = Field(64, ge=1, description="reinforcement: of its networks")
    agent_rate: float = Field(1e-3, gt=0, description="reinforcement: learning rate of its Adam")
    replay: int = Field(32, ge=1, description="reinforcement: choices that are learned from after each")
    least_random: float = Field(0.05, ge=0, le=1, description="reinforcement: share of random choices in the end")


def explored(
    config: AgentConfig, known: Known, labelled: Labelled, ask: Callable[[Graphs, Labelled], Tensor],
    runtime: Runtime, case: Case,
) -> Found:  # fmt: skip
    """Build graphs; return of each pair the share of the better half of them that has it.

    Raises: UsageError for a large graph.
    """
    if known.n_nodes > LARGEST:
        raise UsageError(
            f"reinforcement: {known.n_nodes} nodes are too many", hint=f"at most {LARGEST}, or -p method=gradient"
        )
    agent = _Agent.of(config, known, labelled, ask, runtime, case)
    problem = None
    try:
        with runtime.progress.track("episodes", config.episodes) as report:
            for episode in range(config.episodes):
                agent.play(episode)
                report(episode + 1)
    except BudgetExceeded as error:
        problem = error
    return Found(agent.shares(), problem, {"loss": [float(episode.losses[-1]) for episode in agent.memory]})


@dataclass
class _Episode:
    """Choices (two nodes each) and the losses, before the first and after each."""

    losses: list[Tensor]
    choices: list[tuple[int, int]] = field(default_factory=list)


class _Worth(nn.Module):
    """What it is worth to choose each node first, and each second."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.own, self.around = nn.Linear(n_features + 1, width), nn.Linear(width, width)
        self.first = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))
        self.second = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def nodes(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return what nodes are, (b, n, width), in graphs with adjacencies (b, n, n)."""
        shares = edges / edges.sum(dim=2, keepdim=True).clamp(min=1)
        values = functional.relu(self.own(features)).expand(len(edges), -1, -1)
        return functional.relu(self.around(values + shares @ values))

    def of_first(self, nodes: Tensor) -> Tensor:
        """Return the worth of each first node, (b, n)."""
        found: Tensor = self.first(torch.cat([nodes, _mean_of(nodes)], dim=2)).squeeze(2)
        return found

    def of_second(self, nodes: Tensor, chosen: Tensor) -> Tensor:
        """Return the worth of each second node, (b, n), when nodes (b,) were chosen first."""
        rows = torch.arange(len(nodes), device=nodes.device)
        first = nodes[rows, chosen][:, None].expand_as(nodes)
        found: Tensor = self.second(torch.cat([nodes, first, _mean_of(nodes)], dim=2)).squeeze(2)
        return found


def _mean_of(nodes: Tensor) -> Tensor:
    return nodes.mean(dim=1, keepdim=True).expand_as(nodes)


@dataclass
class _Agent:
    """Plays episodes and learns from all of them."""

    config: AgentConfig
    known: Known
    labelled: Labelled
    ask: Callable[[Graphs, Labelled], Tensor]
    runtime: Runtime
    case: Case
    worth: _Worth
    copied: _Worth
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    memory: list[_Episode] = field(default_factory=list)

    @classmethod
    def of(cls, config: AgentConfig, known: Known, labelled: Labelled, ask: Callable[[Graphs, Labelled], Tensor],
           runtime: Runtime, case: Case) -> _Agent:  # fmt: skip
        with runtime.seeded("graphmi-bb", "agent", case.id):
            worth = runtime.place(_Worth(known.features.shape[1], config.width))
        asked = torch.zeros(known.n_nodes, 1, device=runtime.device).index_fill(0, labelled.rows, 1.0)
        return cls(
            config, known, labelled, ask, runtime, case, worth, copy.deepcopy(worth),
            torch.optim.Adam(worth.parameters(), config.agent_rate),
            torch.cat([known.features.to(runtime.device), asked], dim=1),
        )  # fmt: skip

    def play(self, number: int) -> None:
        """Build one graph with as many edges as the private one, and learn after each edge."""
        episode = _Episode([self._loss([])])
        self.memory.append(episode)
        share = number / max(1, self.config.episodes - 1)
        odds = 1 + (self.config.least_random - 1) * share
        for step in range(self.known.n_edges):
            episode.choices.append(self._choose(episode.choices, odds, (number, step)))
            episode.losses.append(self._loss(episode.choices))
            self._learn((number, step))
        self.copied.load_state_dict(self.worth.state_dict())

    def _loss(self, choices: list[tuple[int, int]]) -> Tensor:
        edges = ordered(torch.tensor(choices, dtype=torch.int64).reshape(-1, 2).T)
        rows = self.labelled.rows.cpu()
        nodes = Graphs.nodes_of(Graph(self.known.features, edges), rows)
        return self.ask(nodes, self.labelled)[0]

    @torch.no_grad()
    def _choose(self, choices: list[tuple[int, int]], odds: float, place: tuple[int, int]) -> tuple[int, int]:
        """Choose two nodes that are no edge yet, at random with these odds."""
        rng = self.runtime.rng("graphmi-bb", "choice", *place, self.case.id)
        taken = self._taken([choices])
        is_random = float(rng.uniform((1,))) < odds
        nodes = self.worth.nodes(self.inputs, self._edges([choices]))
        noise = rng.uniform((2, self.known.n_nodes)).to(nodes.device)
        first = noise[:1] if is_random else self.worth.of_first(nodes)
        chosen = first.masked_fill(taken.all(dim=2), -torch.inf).argmax(dim=1)
        second = noise[1:] if is_random else self.worth.of_second(nodes, chosen)
        other = second.masked_fill(taken[0, chosen], -torch.inf).argmax(dim=1)
        return int(chosen), int(other)

    def _edges(self, histories: list[list[tuple[int, int]]]) -> Tensor:
        """Return the adjacencies (b, n, n) after so many lists of choices."""
        n = self.known.n_nodes
        edges = torch.zeros(len(histories), n, n)
        for row, history in enumerate(histories):
            if history:
                one, two = torch.tensor(history).T
                edges[row, one, two] = edges[row, two, one] = 1.0
        return edges.to(self.runtime.device)

    def _taken(self, histories: list[list[tuple[int, int]]]) -> Tensor:
        """Return which second nodes are no choice for a first one: its neighbours and itself, bool (b, n, n)."""
        own = torch.eye(self.known.n_nodes, dtype=torch.bool, device=self.runtime.device)
        return self._edges(histories).bool() | own

    def _learn(self, place: tuple[int, int]) -> None:
        """Take one step on choices drawn from all that were made."""
        episodes, steps = self._drawn(place)
        before = [self.memory[e].choices[:s] for e, s in zip(episodes, steps, strict=True)]
        after = [self.memory[e].choices[: s + 1] for e, s in zip(episodes, steps, strict=True)]
        made = torch.tensor([history[-1] for history in after], device=self.runtime.device)
        drops = torch.stack([self.memory[e].losses[s] - self.memory[e].losses[s + 1]
                             for e, s in zip(episodes, steps, strict=True)]).to(made.device)  # fmt: skip
        is_last = torch.tensor([s + 1 == self.known.n_edges for s in steps], device=made.device)
        with torch.no_grad():
            following = self.copied.of_first(self.copied.nodes(self.inputs, self._edges(after))).amax(dim=1)
            second_goal = drops + following.masked_fill(is_last, 0)
            open_ = ~self._taken(before)[torch.arange(len(made)), made[:, 0]]
            seconds = self.copied.of_second(self.copied.nodes(self.inputs, self._edges(before)), made[:, 0])
            first_goal = seconds.masked_fill(~open_, -torch.inf).amax(dim=1)
        nodes = self.worth.nodes(self.inputs, self._edges(before))
        first = self.worth.of_first(nodes).gather(1, made[:, :1]).squeeze(1)
        second = self.worth.of_second(nodes, made[:, 0]).gather(1, made[:, 1:]).squeeze(1)
        loss = functional.smooth_l1_loss(first, first_goal) + functional.smooth_l1_loss(second, second_goal)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def _drawn(self, place: tuple[int, int]) -> tuple[list[int], list[int]]:
        """Draw steps of episodes that were made."""
        counts = torch.tensor([len(episode.choices) for episode in self.memory])
        rng = self.runtime.rng("graphmi-bb", "replay", *place, self.case.id)
        chosen = rng.integers(int(counts.sum()), (self.config.replay,)).cpu()
        ends = counts.cumsum(0)
        episodes = torch.searchsorted(ends, chosen, right=True)
        return episodes.tolist(), (chosen - (ends - counts)[episodes]).tolist()

    def shares(self) -> Tensor:
        """Return of each pair the share of the better half of the finished graphs that has it, (p,)."""
        finished = [e for e in self.memory if len(e.choices) == self.known.n_edges] or self.memory[:1]
        finished.sort(key=lambda episode: float(episode.losses[-1]))
        better = finished[: max(1, len(finished) // 2)]
        if not better:
            return torch.zeros(n_pairs(self.known.n_nodes), device=self.runtime.device)
        return values_of_pairs(self._edges([episode.choices for episode in better]).mean(dim=0))
