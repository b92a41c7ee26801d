"""Does the adversary's graph hold nodes of the private one, or do its graphs hold private ones?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from mi_graph.batch import WHOLE
from mi_graph.colours import colour_counts
from mi_graph.graphs import Graph
from micore.contracts import Dataset
from micore.errors import DataError

OVERLAP_ROUNDS = 4
"""Refinements of colours: molecules and the like are told apart by then."""


def measure_overlap(dataset: Dataset) -> dict[str, Any]:
    """Count the public nodes that have the features and the number of edges of a private node.

    Of whole graphs those that are equal to a private one but for the order of nodes, and those with the same edges.
    """
    private = dataset.split("private").take([0])
    if bool((private.nodes == WHOLE).any()):
        return _of_graphs(dataset)
    found: dict[str, Any] = {"private": {"n": private.graphs[0].n_nodes}}
    try:
        public = dataset.split("public").take([0]).graphs[0]
    except DataError:
        return found
    own = set(_looks(private.graphs[0]))
    return {**found, "public": {"n": public.n_nodes, "equal": sum(look in own for look in _looks(public))}}


def _of_graphs(dataset: Dataset) -> dict[str, Any]:
    private, public = (dataset.split(name) for name in ("private", "public"))
    graphs = [split.take(range(len(split))).graphs for split in (private, public)]
    counts = {
        name: _shared(*([colour(graph) for graph in part] for part in graphs))
        for name, colour in (("equal", _coloured), ("same_edges", _shape))
    }
    return {"private": {"n": len(private)}, "public": {"n": len(public), **counts}}


def _shared(private: Sequence[Hashable], public: Sequence[Hashable]) -> int:
    own = set(private)
    return sum(look in own for look in public)


def _shape(graph: Graph, start: Sequence[bytes] | None = None) -> Hashable:
    """Return what is equal for graphs that differ in the order of nodes alone, and hardly ever for others."""
    return frozenset(colour_counts(graph, OVERLAP_ROUNDS, start).items())


def _coloured(graph: Graph) -> Hashable:
    return _shape(graph, [features.numpy().tobytes() for features in graph.features])


def _looks(graph: Graph) -> list[tuple[bytes, int]]:
    rows = zip(graph.features, graph.degrees().tolist(), strict=True)
    return [(features.numpy().tobytes(), degree) for features, degree in rows]
