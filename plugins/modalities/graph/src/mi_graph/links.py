"""Learning from known edges which pairs of nodes are joined: the perceptron of link stealing.

He, Jia, Backes, Gong, Zhang: "Stealing Links from Graph Neural Networks", USENIX Security 2021 (arXiv:2005.02131).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.graphs import n_pairs, pairs_at, places_of
from mi_graph.pair_features import PairViews
from micore.errors import DataError
from micore.runtime import Random, Runtime

HIDDEN, DROPOUT = 32, 0.5
"""Of the perceptron (authors' code)."""


@dataclass(frozen=True)
class Links:
    """Edges to learn from.

    views: of the nodes of one graph; edges: int64 (2, m); known: further edges that are never drawn as pairs without
    one, (2, k).
    """

    views: PairViews
    edges: Tensor
    known: Tensor | None = None

    def others(self, rng: Random) -> Tensor:
        """Draw as many pairs as there are edges among those that are not known to be one, (2, m).

        Raises: DataError where all pairs are edges.
        """
        n, edges = self.views.n_nodes, self.edges if self.known is None else torch.cat([self.edges, self.known], dim=1)
        return draw_others(n, edges, self.edges.shape[1], rng)


def draw_others(n: int, edges: Tensor, k: int, rng: Random) -> Tensor:
    """Draw k pairs of n nodes, each by itself, from all that are none of the edges (2, m); return (2, k).

    Raises: DataError where all pairs are edges.
    """
    taken = places_of(edges.cpu(), n).unique()
    free = n_pairs(n) - len(taken)
    if not free:
        raise DataError("all pairs of nodes are edges: nothing tells edges from others")
    draws = rng.integers(free, (k,)).cpu()
    # the d-th free place lies behind as many taken ones as have at most d free places before them
    before = torch.searchsorted(taken - torch.arange(len(taken)), draws, right=True)
    return pairs_at(draws + before, n)


@dataclass(frozen=True)
class Learning:
    """How the perceptron learns (defaults: authors' code)."""

    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class LinkPredictor:
    """A perceptron that has learned which pairs are joined; mean and deviation (width,) of what it learned from."""

    network: nn.Module
    mean: Tensor
    deviation: Tensor

    @torch.no_grad()
    def scores(self, views: PairViews, pairs: Tensor | None = None) -> Tensor:
        """Return for pairs (2, p) how much likelier an edge is than none, (p,), a logit; None: all pairs in order."""
        self.network.eval()
        return views.scored(self._margin, pairs)

    def _margin(self, numbers: Tensor) -> Tensor:
        logits: Tensor = self.network((numbers - self.mean) / self.deviation)
        return logits[:, 1] - logits[:, 0]


def learned(links: Sequence[Links], learning: Learning, runtime: Runtime, *purpose: object) -> LinkPredictor:
    """Learn from the edges of one or more graphs, and as many other pairs of each that are drawn anew each epoch.

    Numbers are standardised by the edges and the first other pairs. Raises: DataError where all pairs are edges.
    """
    edges = torch.cat([part.views.of(part.edges) for part in links])
    truth = torch.cat([torch.ones(len(edges)), torch.zeros(len(edges))]).long().to(edges.device)
    first = torch.cat([edges, _others(links, runtime.rng(*purpose, "others", 0))])
    mean, deviation = first.mean(dim=0), first.std(dim=0, correction=0)
    deviation = torch.where(deviation > 1e-8, deviation, 1.0)  # a number that is the same for all pairs
    with runtime.seeded(*purpose, "network"):
        network = runtime.place(_perceptron(edges.shape[1]))
    optimizer = torch.optim.Adam(network.parameters(), learning.learning_rate)
    with runtime.progress.track("links", learning.epochs) as report:
        for epoch in range(learning.epochs):
            rng = runtime.rng(*purpose, "others", epoch)
            numbers = (torch.cat([edges, _others(links, rng)]) - mean) / deviation
            order = rng.permutation(len(numbers)).to(numbers.device)
            with runtime.seeded(*purpose, "dropout", epoch):
                for rows in order.split(learning.batch_size):
                    optimizer.zero_grad(set_to_none=True)
                    functional.cross_entropy(network(numbers[rows]), truth[rows]).backward()
                    optimizer.step()
            report(epoch + 1)
    return LinkPredictor(network, mean, deviation)


def _others(links: Sequence[Links], rng: Random) -> Tensor:
    return torch.cat([part.views.of(part.others(rng)) for part in links])


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 2),
    )  # fmt: skip
