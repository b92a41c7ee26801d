"""Does the adversary's graph hold nodes of the private one?"""

from __future__ import annotations

from typing import Any

from mi_graph.graphs import Graph
from micore.contracts import Dataset
from micore.errors import DataError


def measure_overlap(dataset: Dataset) -> dict[str, Any]:
    """Count the public nodes that have the features and the number of edges of a private node."""
    private = dataset.split("private").take([0]).graphs[0]
    found: dict[str, Any] = {"private": {"n": private.n_nodes}}
    try:
        public = dataset.split("public").take([0]).graphs[0]
    except DataError:
        return found
    own = set(_looks(private))
    return {**found, "public": {"n": public.n_nodes, "equal": sum(look in own for look in _looks(public))}}


def _looks(graph: Graph) -> list[tuple[bytes, int]]:
    rows = zip(graph.features, graph.degrees().tolist(), strict=True)
    return [(features.numpy().tobytes(), degree) for features, degree in rows]
