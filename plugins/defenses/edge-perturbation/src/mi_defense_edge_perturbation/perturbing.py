"""Changing the edges of a graph at random."""

from __future__ import annotations

import math
import random
from contextlib import suppress

import networkx
import torch
from torch import Tensor

from mi_graph.graphs import Graph, all_pairs, likeliest, n_pairs, ordered, places_of
from micore.errors import ModelError
from micore.runtime import Random

LARGEST = 10_000
"""Nodes of the largest graph all of whose pairs get noise of their own."""

COUNT_SHARE = 0.01
"""Of the privacy budget of LapGraph: what the number of edges costs."""


def randomised(graph: Graph, epsilon: float, rng: Random) -> Tensor:
    """Return the edges after randomised response: each pair keeps what it is with chance e^eps / (1 + e^eps).

    One edge more or less changes the chance of any outcome by at most the factor e^eps (Wu et al., 2022, EdgeRand,
    whose coin flips have the same chances).
    """
    _require_pairs(graph.n_nodes)
    flips = 1 / (1 + math.exp(epsilon))
    is_edge = torch.zeros(n_pairs(graph.n_nodes), dtype=torch.bool)
    is_edge[places_of(graph.edges, graph.n_nodes)] = True
    flipped = rng.uniform(tuple(is_edge.shape)) < flips
    return all_pairs(graph.n_nodes)[:, is_edge ^ flipped]


def noisy(graph: Graph, epsilon: float, rng: Random) -> Tensor:
    """Return the pairs with the highest values under Laplace noise, as many as a noisy count says (LapGraph)."""
    _require_pairs(graph.n_nodes)
    n = n_pairs(graph.n_nodes)
    count = graph.n_edges + float(_laplace((1,), rng)) / (COUNT_SHARE * epsilon)
    values = _laplace((n,), rng) / ((1 - COUNT_SHARE) * epsilon)
    values[places_of(graph.edges, graph.n_nodes)] += 1
    return likeliest(values, graph.n_nodes, min(max(1, round(count)), n))


def swapped(graph: Graph, share: float, rng: Random) -> Tensor:
    """Return edges of which a share has changed partners: (a, b), (c, d) become (a, d), (c, b); degrees stay.

    Graphs that allow no more swaps keep the rest as it is.
    """
    shape = networkx.Graph()
    shape.add_edges_from(graph.edges.T.tolist())
    swaps = round(share * graph.n_edges / 2)
    with suppress(networkx.NetworkXException):  # too few nodes or edges, or no more swaps found
        networkx.double_edge_swap(shape, swaps, max_tries=100 * max(1, swaps), seed=random.Random(rng.seed()))
    return ordered(torch.tensor(list(shape.edges), dtype=torch.int64).T)


def _laplace(shape: tuple[int, ...], rng: Random) -> Tensor:
    """Draw from the Laplace distribution of scale 1."""
    uniform = rng.uniform(shape).double() - 0.5
    return (-uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-12))).float()


def _require_pairs(n: int) -> None:
    if n > LARGEST:
        raise ModelError(
            f"noise on every pair of {n} nodes does not fit into memory", hint=f"a graph of at most {LARGEST} nodes"
        )
