"""How many of a node's neighbours are neighbours of each other: Watts and Strogatz, Nature 1998."""

from __future__ import annotations

import numpy
import torch
from scipy import sparse
from torch import Tensor

from mi_graph.graphs import Graph


def clustering(graph: Graph) -> Tensor:
    """Return which share of the pairs of its neighbours are joined, for each node, float64 (n,); 0 without such."""
    degrees = graph.degrees().double()
    return 2 * triangles(graph) / (degrees * (degrees - 1)).clamp(min=1)


def triangles(graph: Graph) -> Tensor:
    """Return in how many triangles each node is, float64 (n,).

    Edges lead from nodes with fewer edges to those with more, so that no node begins more than a root of 2 m: products
    of sparse matrices stay small beside nodes that are joined to all others.
    """
    ahead = _ahead(graph)
    through = (ahead @ ahead).multiply(ahead)  # first to last node of a triangle, by way of the middle
    beside = (ahead.T @ ahead).multiply(ahead)  # middle to last, both reached from the first
    counts = through.sum(axis=1), beside.sum(axis=1), beside.sum(axis=0)
    return torch.from_numpy(sum(numpy.asarray(part, dtype=numpy.float64).ravel() for part in counts))


def _ahead(graph: Graph) -> sparse.csr_array:
    ranks = torch.empty(graph.n_nodes, dtype=torch.int64)
    ranks[graph.degrees().argsort(stable=True)] = torch.arange(graph.n_nodes)
    one, two = graph.edges
    is_turned = ranks[one] > ranks[two]
    ends = torch.where(is_turned, two, one).numpy(), torch.where(is_turned, one, two).numpy()
    ones = numpy.ones(graph.n_edges, dtype=numpy.int32)
    return sparse.coo_array((ones, ends), shape=(graph.n_nodes, graph.n_nodes)).tocsr()
