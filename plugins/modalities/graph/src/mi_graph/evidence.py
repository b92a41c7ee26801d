"""What an adversary holds of a private graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_graph.batch import Graphs
from mi_graph.graphs import Graph, all_pairs, places_of
from micore.contracts import Case
from micore.errors import UsageError
from micore.runtime import Runtime

KINDS = ("features", "labels", "edges", "labels+edges")
"""What the evidence of goal ``structure`` holds: the features of all nodes, and with these their true classes, some of
the edges, or both."""

GRAPH_KINDS = ("size",)
"""What it holds where the private graphs are many: how many nodes one of them has."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a private graph: how many edges there are, and at most some of them.

    features: float32 (n, F). n_edges: how many edges to give back. labels: int64 (n,), the true class of each node, or
    None. edges: int64 (2, k), edges that are known, or None; nobody judges what is said of them. pairs: the pairs that
    are asked about, int64 (2, p); None: all. kinds: how many edges there are of each kind, where these differ.
    """

    features: Tensor
    n_edges: int
    labels: Tensor | None = None
    edges: Tensor | None = None
    pairs: Tensor | None = None
    kinds: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """What it is called: one of `KINDS`."""
        parts = [name for name, part in (("labels", self.labels), ("edges", self.edges)) if part is not None]
        return "+".join(parts) or "features"

    @property
    def n_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.features)

    def asked(self) -> Tensor:
        """Return the pairs that are asked about, int64 (2, p)."""
        return all_pairs(self.n_nodes) if self.pairs is None else self.pairs

    def known_places(self) -> Tensor:
        """Return where the known edges stand among the pairs that are asked about, int64 (k,)."""
        if self.edges is None:
            return torch.empty(0, dtype=torch.int64)
        places = places_of(self.edges, self.n_nodes)
        return places if self.pairs is None else torch.searchsorted(places_of(self.pairs, self.n_nodes), places)

    def nodes(self, rows: Tensor | None = None) -> Graphs:
        """Name nodes of the private graph to the target's interface, which knows the edges; None: all nodes."""
        return Graphs.nodes_of(Graph.named(self.features), rows)


@dataclass(frozen=True)
class Labelled:
    """Nodes whose true classes an attack uses: rows, int64 (t,), and labels, int64 (t,), both on its device."""

    rows: Tensor
    labels: Tensor

    @classmethod
    def of(cls, known: Known, share: float, case: Case, runtime: Runtime) -> Labelled:
        """Use the classes of a share of the nodes, drawn at random.

        Raises: UsageError for evidence without labels.
        """
        if known.labels is None:
            raise UsageError("the attack needs the classes of nodes", hint="--evidence labels")
        rows = torch.arange(known.n_nodes)
        if share < 1:
            rows = runtime.rng("labelled", case.id).permutation(known.n_nodes)[: max(1, round(share * known.n_nodes))]
        rows = rows.cpu()
        return cls(rows.to(runtime.device), known.labels[rows].to(runtime.device))

    def loss(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy of the classes, of logits (n, classes) of all nodes."""
        return functional.cross_entropy(logits[self.rows].float(), self.labels)


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
