"""Orders of nodes in which a decoder learns graphs: breadth-first, or matched to what it gives.

Simonovsky and Komodakis: "GraphVAE: Towards Generation of Small Graphs Using Variational Autoencoders", ICANN 2018
(arXiv:1802.03480), section 3.4: max-pooling matching (Cho et al., CVPR 2014), then the Hungarian method.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mi_graph.graphs import Graph

ELEMENTS = 1 << 24
"""Values of the largest tensor that a matching makes."""

ROUNDS = 50
"""Rounds of max-pooling."""


def breadth_first(graph: Graph) -> list[int]:
    """Return the nodes in breadth-first order, at each turn those with the most edges first."""
    neighbours: list[list[int]] = [[] for _ in range(graph.n_nodes)]
    for one, two in graph.edges.T.tolist():
        neighbours[one].append(two)
        neighbours[two].append(one)

    def rank(node: int) -> tuple[int, int]:
        return -len(neighbours[node]), node

    found: dict[int, None] = {}
    for root in sorted(range(graph.n_nodes), key=rank):
        queue = [root] if root not in found else []
        found.update(dict.fromkeys(queue))
        for node in queue:  # grows while it is read
            fresh = [other for other in sorted(neighbours[node], key=rank) if other not in found]
            found.update(dict.fromkeys(fresh))
            queue += fresh
    return list(found)


def matrix(graph: Graph, order: list[int], n: int) -> Tensor:
    """Return the adjacency of a graph in an order of its nodes, float32 (n, n), for further nodes 0."""
    places = torch.empty(graph.n_nodes, dtype=torch.int64)
    places[torch.tensor(order)] = torch.arange(graph.n_nodes)
    one, two = places[graph.edges]
    found = torch.zeros(n, n)
    found[one, two] = found[two, one] = 1
    return found


def matched(graphs: Tensor, decoded: Tensor, sizes: Tensor) -> Tensor:
    """Return adjacencies (G, n, n) with their nodes moved to where they fit decoded ones (G, n, n) best.

    sizes: the nodes that each graph has, int64 (G,); they stay among the first.
    """
    n = graphs.shape[1]
    rows = max(1, ELEMENTS // n**3)
    parts = zip(graphs.split(rows), decoded.split(rows), sizes.split(rows), strict=True)
    return torch.cat([_moved(part, _pooled(part, given, size), size) for part, given, size in parts])


def _pooled(graphs: Tensor, decoded: Tensor, sizes: Tensor) -> Tensor:
    """Return how well node i of a graph fits place a, (G, n, n): max-pooling matching."""
    n = graphs.shape[1]
    there = (torch.arange(n, device=sizes.device) < sizes[:, None]).float()
    both = there[:, :, None] * there[:, None, :]
    decoded = decoded * (1 - torch.eye(n, device=decoded.device))
    alike = both / ((graphs.sum(dim=2)[:, :, None] - decoded.sum(dim=2)[:, None, :]).abs() + 1)
    fit = both / both.flatten(1).norm(dim=1)[:, None, None]
    for _ in range(ROUNDS):
        best = (fit[:, :, :, None] * decoded[:, None]).amax(dim=2)  # of node j, should i stand at a: (G, j, a)
        fit = fit * alike + graphs @ best
        fit = fit / fit.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-12)
    return fit


def _moved(graphs: Tensor, fit: Tensor, sizes: Tensor) -> Tensor:
    """Give each node the place that the Hungarian method finds for it."""
    n, orders = graphs.shape[1], []
    for one, size in zip(fit.cpu(), sizes.tolist(), strict=True):
        nodes, places = linear_sum_assignment(-one[:size, :size].numpy())
        order = torch.arange(n)
        order[torch.as_tensor(places)] = torch.as_tensor(nodes)
        orders.append(order)
    order = torch.stack(orders).to(graphs.device)
    rows = graphs.gather(1, order[:, :, None].expand(-1, -1, n))
    return rows.gather(2, order[:, None, :].expand(-1, n, -1))
