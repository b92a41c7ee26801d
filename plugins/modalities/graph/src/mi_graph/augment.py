"""Random changes of graphs in training: edges and features that are left out.

Rong, Huang, Xu, Huang: "DropEdge: Towards Deep Graph Convolutional Networks on Node Classification", ICLR 2020.
"""

from __future__ import annotations

from dataclasses import replace

from mi_graph.batch import Graphs
from mi_graph.graphs import Graph
from micore.errors import UsageError
from micore.runtime import Random

SHARES = {"none": 0.0, "light": 0.05, "medium": 0.1, "strong": 0.3}
"""Of the edges, and of the values of features, that are left out."""


def augment(samples: Graphs, strength: str, rng: Random) -> Graphs:
    """Leave edges and features out at random; the given graphs stay as they are.

    Raises: UsageError when there is no such strength.
    """
    if strength not in SHARES:
        raise UsageError(f"there is no augmentation {strength!r}", hint=", ".join(SHARES))
    if not SHARES[strength]:
        return samples
    return replace(samples, graphs=tuple(_thinned(graph, SHARES[strength], rng) for graph in samples.graphs))


def _thinned(graph: Graph, share: float, rng: Random) -> Graph:
    stays, seen = (rng.uniform(tuple(shape)) >= share for shape in ((graph.n_edges,), graph.features.shape))
    kinds = None if graph.kinds is None else graph.kinds[stays]
    return replace(graph, edges=graph.edges[:, stays], kinds=kinds, features=graph.features * seen)
