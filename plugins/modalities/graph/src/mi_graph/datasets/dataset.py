"""The one data-set class that all openers of single graphs return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_graph.adapter import EDGE_KINDS, TASK
from mi_graph.batch import Graphs
from mi_graph.graphs import Graph, ordered, places_of
from mi_graph.splits import NodeSplit
from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec
from micore.runtime import Random, derive_seed


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeDataset:
    """A private graph whose nodes are classified (`micore.contracts.Dataset`).

    graph: the private one, as the target is trained and used on; removed: edges that were taken out of it before, int64
    (2, r), which only judges know. labels: of all nodes, int64 (n,). train: nodes that the target learns from; the
    others are held out. public: the adversary's graph, from elsewhere; public_labels: of its nodes, int64, or None.
    """

    modality: ClassVar[str] = "graph"

    name: str
    classes: tuple[str, ...]
    graph: Graph
    removed: Tensor
    labels: Tensor
    train: Tensor
    public: Graph | None = None
    public_labels: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def input(self) -> InputSpec:
        """What a model trained on it takes: the features of a node."""
        kinds = {} if self.graph.kinds is None else {EDGE_KINDS: int(self.graph.kinds.max()) + 1}
        return InputSpec(shape=(self.graph.features.shape[1],), options={TASK: "node", **kinds})

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits, and of the edges that were taken out."""
        parts = {name: split.fingerprint for name, split in self._splits.items()}
        return digest(self.modality, list(self.classes), parts, self.removed.numpy().tobytes())

    @cached_property
    def _splits(self) -> dict[str, NodeSplit]:
        n = self.graph.n_nodes
        held_out = torch.ones(n, dtype=torch.bool).index_fill(0, self.train, False).nonzero().flatten()
        found = {"private": NodeSplit(self.graph, self.train, self.labels[self.train])}
        if len(held_out):
            found["holdout"] = NodeSplit(self.graph, held_out, self.labels[held_out])
        if self.public is not None:
            found["public"] = NodeSplit(self.public, torch.arange(self.public.n_nodes), self.public_labels)
        return found

    def split(self, name: str) -> NodeSplit:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError when the data set has none of this name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[NodeSplit, tuple[str, ...]]:
        """Return what evaluator models learn: all nodes of the private graph."""
        return NodeSplit(self.graph, torch.arange(self.graph.n_nodes), self.labels), self.classes

    @property
    def nodes(self) -> Graphs:
        """All nodes of the private graph."""
        return Graphs.nodes_of(self.graph)


def node_dataset(
    name: str,
    features: Tensor,
    edges: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    *,
    train: Tensor | None,
    per_class: int,
    kept: float,
    seed: int,
    options: Mapping[str, Any],
    public: Graph | None = None,
    public_labels: Tensor | None = None,
    kinds: Tensor | None = None,
) -> NodeDataset:
    """Return a graph as a data set: nodes in a random order, a share of the edges kept, training nodes chosen.

    train: the training nodes as numbered in the arguments; None: so many of each class at random. Orders in files often
    give edges away, and so nobody is given that of the file. kinds: of which kind each edge is, int64 (m,), of edges
    that differ and stand there once.

    Raises: DataError when a class has too few nodes, or no edge is left.
    """
    n = len(features)
    order = _rng(name, seed, "order").permutation(n)
    place = torch.empty(n, dtype=torch.int64).scatter_(0, order, torch.arange(n))
    given, edges, labels = place[edges], ordered(place[edges]), labels[order]
    train = _trained(name, labels, per_class, seed) if train is None else place[train].sort().values
    stays = _rng(name, seed, "kept").permutation(edges.shape[1])[: round(kept * edges.shape[1])].sort().values
    if not len(stays):
        raise DataError(f"{name}: no edge is left", hint="-D kept=1")
    is_kept = torch.zeros(edges.shape[1], dtype=torch.bool).index_fill(0, stays, True)
    sorted_kinds = None if kinds is None else kinds[_places(given, n).argsort()]
    graph = Graph(
        features[order].float(), edges[:, is_kept], kinds=None if sorted_kinds is None else sorted_kinds[is_kept],
        home=True,
    )  # fmt: skip
    return NodeDataset(
        name=name, classes=classes, graph=graph, removed=edges[:, ~is_kept], labels=labels, train=train, public=public,
        public_labels=public_labels, options=options,
    )  # fmt: skip


def _places(pairs: Tensor, n: int) -> Tensor:
    """Return where pairs in any direction stand among all pairs of n nodes."""
    return places_of(torch.stack([pairs.min(dim=0).values, pairs.max(dim=0).values]), n)


def _rng(name: str, seed: int, purpose: str) -> Random:
    return Random(derive_seed(name, seed, purpose))


def _trained(name: str, labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Choose so many nodes of each class, at most half of them."""
    rng, chosen = _rng(name, seed, "train"), []
    for label in labels.unique().tolist():
        members = labels.eq(label).nonzero().flatten()
        if len(members) < 2:
            raise DataError(f"{name}: class {label} has {len(members)} node", hint="leave such classes out")
        chosen.append(members[rng.permutation(len(members))[: min(per_class, len(members) // 2)]])
    return torch.cat(chosen).sort().values
