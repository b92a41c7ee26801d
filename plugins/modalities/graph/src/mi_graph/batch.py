"""Samples of graphs: whole graphs, or single nodes in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_graph.graphs import Graph

WHOLE = -1
"""The node of a sample that is a whole graph."""


@dataclass(frozen=True, eq=False)
class Graphs(Sequence["Graphs"]):
    """B samples, each a graph or one node of it; samples share graphs. A sample of it is such a batch of length 1.

    owners: which of ``graphs`` each sample is of, int64 (B,); nodes: which node it is, int64 (B,), or `WHOLE`.

    Raises: ValueError when owners and nodes do not fit.
    """

    graphs: tuple[Graph, ...]
    owners: Tensor
    nodes: Tensor

    def __post_init__(self) -> None:
        if self.owners.shape != self.nodes.shape or self.owners.ndim != 1:
            raise ValueError(f"{tuple(self.owners.shape)} owners for {tuple(self.nodes.shape)} nodes")

    @classmethod
    def whole(cls, graphs: Sequence[Graph]) -> Graphs:
        """Return whole graphs as samples."""
        return cls(tuple(graphs), torch.arange(len(graphs)), torch.full((len(graphs),), WHOLE))

    @classmethod
    def nodes_of(cls, graph: Graph, nodes: Tensor | None = None) -> Graphs:
        """Return nodes of a graph as samples; None: all of them in order."""
        nodes = torch.arange(graph.n_nodes) if nodes is None else nodes
        return cls((graph,), torch.zeros_like(nodes), nodes)

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, index: int | slice) -> Graphs:  # type: ignore[override]
        if isinstance(index, int):
            rows = range(len(self))[index]
            return self._rows(torch.tensor([rows]))
        return self._rows(torch.arange(len(self))[index])

    def __iter__(self) -> Iterator[Graphs]:
        return (self[row] for row in range(len(self)))

    def _rows(self, rows: Tensor) -> Graphs:
        used, owners = self.owners[rows].unique(return_inverse=True)
        return Graphs(tuple(self.graphs[owner] for owner in used.tolist()), owners, self.nodes[rows])

    def each(self) -> list[tuple[Graph, int]]:
        """Return the graph and the node of each sample."""
        pairs = zip(self.owners.tolist(), self.nodes.tolist(), strict=True)
        return [(self.graphs[owner], node) for owner, node in pairs]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graphs) and self.each() == other.each()

    def __hash__(self) -> int:
        return hash(tuple(self.each()))


def joined(parts: Sequence[Graphs]) -> Graphs:
    """Return several batches as one; a graph that several share is held once."""
    places: dict[Graph, int] = {}
    owners = [
        torch.tensor([places.setdefault(graph, len(places)) for graph in part.graphs], dtype=torch.int64)[part.owners]
        for part in parts
    ]
    empty = torch.empty(0, dtype=torch.int64)
    return Graphs(tuple(places), torch.cat([empty, *owners]), torch.cat([empty, *(part.nodes for part in parts)]))


# as tensors -----------------------------------------------------------------------------------------------

_PARTS = ("features", "edges", "scores", "pairs", "weights", "kinds")


def pack(samples: Graphs) -> dict[str, Tensor]:
    """Return samples as tensors to store."""
    tensors = {"owners": samples.owners, "nodes": samples.nodes, "graphs": torch.tensor(len(samples.graphs))}
    for place, graph in enumerate(samples.graphs):
        parts = {name: getattr(graph, name) for name in _PARTS}
        tensors |= {f"{place}.{name}": part.detach() for name, part in parts.items() if part is not None}
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> Graphs:
    """Return stored samples."""
    graphs = []
    for place in range(int(tensors["graphs"])):
        graphs.append(Graph(**{name: tensors[key] for name in _PARTS if (key := f"{place}.{name}") in tensors}))
    return Graphs(tuple(graphs), tensors["owners"], tensors["nodes"])
