"""From samples of graphs to what a graph network takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mi_graph.batch import WHOLE, Graphs, joined
from mi_graph.graphs import Graph
from micore.errors import ModelError
from micore.inputs import InputSpec

TASK = "task"
"""The option of an `InputSpec` that says what a network classifies: ``node`` or ``graph``."""

EDGE_KINDS = "kinds"
"""The option of an `InputSpec` that says how many kinds of edges there are, where these differ."""


@dataclass(frozen=True)
class GraphInputs:
    """Graphs side by side as one, without edges between them.

    features: (N, F); edge_index: int64 (2, 2 E), each edge in both directions; graph_of: which graph a node is of,
    int64 (N,); rows: the nodes that are asked about, int64 (B,), None: all graphs as wholes; n_graphs: how many.
    weights: relaxed adjacency (N, N) or (k, N, N) in place of the edges, of a single graph. kinds: of which kind each
    edge is, int64 (2 E,), where these differ. home: all are the target's own graph.
    """

    features: Tensor
    edge_index: Tensor
    graph_of: Tensor
    rows: Tensor | None
    n_graphs: int
    weights: Tensor | None = None
    kinds: Tensor | None = None
    home: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(B, F)."""
        return len(self), self.features.shape[1]

    def __len__(self) -> int:
        return self.n_graphs if self.rows is None else len(self.rows)

    def to(self, device: torch.device) -> GraphInputs:
        """Return the inputs on a device."""
        return replace(
            self, features=self.features.to(device), edge_index=self.edge_index.to(device),
            graph_of=self.graph_of.to(device), rows=None if self.rows is None else self.rows.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            kinds=None if self.kinds is None else self.kinds.to(device),
        )  # fmt: skip


@dataclass(frozen=True)
class GraphAdapter:
    """Convert samples of graphs to `GraphInputs`; several batches in a list are one.

    Raises: ModelError when the spec is not that of a graph network, and for samples that do not fit it.
    """

    spec: InputSpec

    def __post_init__(self) -> None:
        if len(self.spec.shape) != 1 or self.spec.options.get(TASK) not in ("node", "graph"):
            raise ModelError(f"a graph network takes (features,) of nodes or graphs, not {self.spec.to_dict()}")

    def __call__(self, samples: Graphs | Sequence[Graphs]) -> GraphInputs:
        """Return the graphs of samples side by side, and what is asked about."""
        batch = samples if isinstance(samples, Graphs) else joined(samples)
        self._check(batch)
        graphs = batch.graphs
        if self.spec.options[TASK] == "graph":  # a batch holds equal graphs once, and each of them is asked about
            graphs = tuple(graphs[owner] for owner in batch.owners.tolist())
        sizes = torch.tensor([graph.n_nodes for graph in graphs], dtype=torch.int64)
        starts = sizes.cumsum(0) - sizes
        edges = torch.cat([graph.edges + start for graph, start in zip(graphs, starts, strict=True)], dim=1)
        relaxed = graphs[0].weights if len(graphs) == 1 else None
        return GraphInputs(
            features=torch.cat([graph.features for graph in graphs]),
            edge_index=torch.cat([edges, edges.flip(0)], dim=1),
            graph_of=torch.arange(len(sizes)).repeat_interleave(sizes),
            rows=starts[batch.owners] + batch.nodes if self.spec.options[TASK] == "node" else None,
            n_graphs=len(sizes), weights=relaxed, kinds=_kinds_of(graphs),
            home=all(graph.home for graph in graphs),
        )  # fmt: skip

    def _check(self, batch: Graphs) -> None:
        (width,), is_node_task = self.spec.shape, self.spec.options[TASK] == "node"
        if not len(batch):
            raise ModelError("no sample of a graph")
        if any(graph.private for graph in batch.graphs):
            raise ModelError("the edges of the private graph are known to the target's interface alone")
        if len({graph.home for graph in batch.graphs}) > 1:  # beside others it would be answered as one of them
            raise ModelError("the target's own graph and others are asked about in batches of their own")
        wrong = next((graph for graph in batch.graphs if graph.features.shape[1] != width), None)
        if wrong is not None:
            raise ModelError(f"the model takes {width} features of a node, not {wrong.features.shape[1]}")
        if is_node_task and bool((batch.nodes == WHOLE).any()):
            raise ModelError("the model classifies nodes, not whole graphs")
        if not is_node_task and bool((batch.nodes != WHOLE).any()):
            raise ModelError("the model classifies whole graphs, not nodes")
        many = len(batch.graphs) > 1 or (not is_node_task and len(batch) > 1)
        if many and any(graph.weights is not None for graph in batch.graphs):
            raise ModelError("relaxed graphs are asked about one by one")


def _kinds_of(graphs: Sequence[Graph]) -> Tensor | None:
    """Return the kind of each edge in both directions, int64 (2 E,); None where no graph tells them apart."""
    if all(graph.kinds is None for graph in graphs):
        return None
    parts = [torch.zeros(graph.n_edges, dtype=torch.int64) if graph.kinds is None else graph.kinds for graph in graphs]
    return torch.cat(parts).repeat(2)


@dataclass(frozen=True)
class DeployedAdapter:
    """What the interface of a target does that is used on a private graph: nodes that are named get its edges.

    Raises: ModelError when such a graph has another number of nodes.
    """

    inner: GraphAdapter
    private: Graph

    def __call__(self, samples: Graphs | Sequence[Graphs]) -> GraphInputs:
        """Return the inputs, with the private edges where they are named."""
        batch = samples if isinstance(samples, Graphs) else joined(samples)
        return self.inner(replace(batch, graphs=tuple(map(self._with_edges, batch.graphs))))

    def _with_edges(self, graph: Graph) -> Graph:
        if not graph.private:
            return graph
        if graph.n_nodes != self.private.n_nodes:
            raise ModelError(f"the private graph has {self.private.n_nodes} nodes, not {graph.n_nodes}")
        return Graph(graph.features, self.private.edges, kinds=self.private.kinds, home=True)


@dataclass(frozen=True)
class DeployedGraphs:
    """What the interface of a target does that was trained on many private graphs: it knows those that are numbered.

    Raises: ModelError for numbers that no graph has, and for another number of nodes.
    """

    inner: GraphAdapter
    graphs: tuple[Graph, ...]

    def __call__(self, samples: Graphs | Sequence[Graphs]) -> GraphInputs:
        """Return the inputs, with the private graphs where they are named."""
        batch = samples if isinstance(samples, Graphs) else joined(samples)
        return self.inner(replace(batch, graphs=tuple(map(self._known, batch.graphs))))

    def _known(self, graph: Graph) -> Graph:
        if not graph.private:
            return graph
        if graph.number is None or not 0 <= graph.number < len(self.graphs):
            raise ModelError(f"there is no private graph {graph.number}, they count from 0 to {len(self.graphs) - 1}")
        known = self.graphs[graph.number]
        if known.n_nodes != graph.n_nodes:
            raise ModelError(f"private graph {graph.number} has {known.n_nodes} nodes, not {graph.n_nodes}")
        return known
