"""Parts of graph data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mi_graph.batch import Graphs
from mi_graph.graphs import Graph
from micore.files import digest


@dataclass(frozen=True)
class NodeSplit:
    """Some nodes of one graph (`micore.contracts.Split`); models see the whole graph.

    nodes: int64 (N,); labels: int64 (N,), or None.

    Raises: ValueError when nodes or labels do not fit.
    """

    graph: Graph
    nodes: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.nodes.numel() and int(self.nodes.max()) >= self.graph.n_nodes:
            raise ValueError(f"node {int(self.nodes.max())} of {self.graph.n_nodes}")
        if self.labels is not None and self.labels.shape != self.nodes.shape:
            raise ValueError(f"{len(self.labels)} labels for {len(self.nodes)} nodes")

    def __len__(self) -> int:
        return len(self.nodes)

    def take(self, indices: Sequence[int] | Tensor) -> Graphs:
        """Return these nodes."""
        return Graphs.nodes_of(self.graph, self.nodes[torch.as_tensor(indices, dtype=torch.int64)])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of graph, nodes and labels, 64 hex digits."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return digest(self.graph.fingerprint, self.nodes.numpy().tobytes(), labels)


@dataclass(frozen=True)
class GraphSplit:
    """Whole graphs (`micore.contracts.Split`).

    graphs: N of them; labels: int64 (N,), or None.

    Raises: ValueError when labels do not fit.
    """

    graphs: tuple[Graph, ...]
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.shape != (len(self.graphs),):
            raise ValueError(f"{len(self.labels)} labels for {len(self.graphs)} graphs")

    def __len__(self) -> int:
        return len(self.graphs)

    def take(self, indices: Sequence[int] | Tensor) -> Graphs:
        """Return these graphs."""
        return Graphs.whole([self.graphs[row] for row in torch.as_tensor(indices, dtype=torch.int64).tolist()])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of graphs and labels, 64 hex digits."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return digest([graph.fingerprint for graph in self.graphs], labels)
