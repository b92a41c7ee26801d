"""What an adversary holds of a private graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mi_graph.batch import Graphs
from mi_graph.graphs import Graph, all_pairs

KINDS = ("features", "labels")
"""What the evidence of goal ``structure`` holds: the features of all nodes, and their true classes as well."""

GRAPH_KINDS = ("size",)
"""What it holds where the private graphs are many: how many nodes one of them has."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a private graph: never an edge, but how many there are.

    features: float32 (n, F). labels: int64 (n,), the true class of each node, or None. n_edges: how many edges to give
    back. pairs: the pairs that are asked about, int64 (2, p); None: all.
    """

    features: Tensor
    n_edges: int
    labels: Tensor | None = None
    pairs: Tensor | None = None

    @property
    def kind(self) -> str:
        """What it is called: one of `KINDS`."""
        return "features" if self.labels is None else "labels"

    @property
    def n_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.features)

    def asked(self) -> Tensor:
        """Return the pairs that are asked about, int64 (2, p)."""
        return all_pairs(self.n_nodes) if self.pairs is None else self.pairs

    def nodes(self, rows: Tensor | None = None) -> Graphs:
        """Name nodes of the private graph to the target's interface, which knows the edges; None: all nodes."""
        return Graphs.nodes_of(Graph.named(self.features), rows)


@dataclass(frozen=True, kw_only=True)
class KnownGraph:
    """What is known of one of many private graphs: which it is, and its number of nodes; no edge, no feature."""

    number: int
    n_nodes: int

    @property
    def kind(self) -> str:
        """What it is called: one of `GRAPH_KINDS`."""
        return GRAPH_KINDS[0]

    def graph(self) -> Graphs:
        """Name the graph to the target's interface, which knows it."""
        return Graphs.whole([Graph.numbered(self.number, self.n_nodes)])
