"""The one data-set class that all openers of many graphs return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_graph.adapter import TASK
from mi_graph.datasets.options import ManyGraphsOptions
from mi_graph.graphs import Graph, ordered
from mi_graph.splits import GraphSplit
from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec
from micore.runtime import Random, derive_seed

PARTS = ("private", "holdout", "public")


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphsDataset:
    """Graphs that are classified as wholes (`micore.contracts.Dataset`), in three parts that share none.

    graphs: all of them; labels: int64 (G,); rows: which graphs each part has, by its name. The adversary's part is
    drawn from the same source, and has no labels.
    """

    modality: ClassVar[str] = "graph"

    name: str
    classes: tuple[str, ...]
    graphs: tuple[Graph, ...]
    labels: Tensor
    rows: Mapping[str, Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def input(self) -> InputSpec:
        """What a model trained on it takes: the features of a node."""
        return InputSpec(shape=(self.graphs[0].features.shape[1],), options={TASK: "graph"})

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        return digest(self.modality, list(self.classes), {name: self.split(name).fingerprint for name in PARTS})

    @cached_property
    def _splits(self) -> dict[str, GraphSplit]:
        return {name: self._part(self.rows[name], has_labels=name != "public") for name in PARTS}

    def _part(self, rows: Tensor, *, has_labels: bool) -> GraphSplit:
        return GraphSplit(tuple(self.graphs[row] for row in rows.tolist()), self.labels[rows] if has_labels else None)

    def split(self, name: str) -> GraphSplit:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError when the data set has none of this name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[GraphSplit, tuple[str, ...]]:
        """Return what evaluator models learn: all graphs but the adversary's."""
        return self._part(torch.cat([self.rows["private"], self.rows["holdout"]]), has_labels=True), self.classes


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Graphs as one, without edges between them.

    features: float32 (N, F); edges: int64 (2, m), as in files; graph_of: which graph a node is of, int64 (N,); labels:
    of the graphs, int64 (G,); classes: their names.
    """

    features: Tensor
    edges: Tensor
    graph_of: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def graphs_dataset(name: str, held: SideBySide, settings: ManyGraphsOptions) -> GraphsDataset:
    """Return graphs as a data set: nodes in a random order, each class in all three parts, parts in a random order.

    Raises: DataError when a class has too few graphs, or the shares leave none.
    """
    if settings.private + settings.public >= 1:
        raise DataError(f"{name}: private and public graphs leave none that is held out", hint="-D public=0.4")
    return GraphsDataset(
        name=name, classes=held.classes, graphs=_separate(held, _rng(name, settings.seed, "order")), labels=held.labels,
        rows=_parts(name, held, settings), options=settings.model_dump(mode="json"),
    )  # fmt: skip


def _rng(name: str, seed: int, purpose: str) -> Random:
    return Random(derive_seed(name, seed, purpose))


def _parts(name: str, held: SideBySide, settings: ManyGraphsOptions) -> dict[str, Tensor]:
    """Divide each class, so that every part has at least one graph of it."""
    rng = _rng(name, settings.seed, "parts")
    found: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    for label, title in enumerate(held.classes):
        members = held.labels.eq(label).nonzero().flatten()
        n = len(members)
        if n < len(PARTS):
            raise DataError(f"{name}: class {title} has {n} graphs, too few for three parts", hint="leave it out")
        n_private = min(max(1, round(settings.private * n)), n - 2)
        n_public = min(max(1, round(settings.public * n)), n - n_private - 1)
        rows = members[rng.permutation(n)].split([n_private, n - n_private - n_public, n_public])
        for part, some in zip(PARTS, rows, strict=True):
            found[part].append(some)
    joined = {part: torch.cat(rows) for part, rows in found.items()}
    return {part: rows[rng.permutation(len(rows))] for part, rows in joined.items()}


def _separate(held: SideBySide, rng: Random) -> tuple[Graph, ...]:
    """Take graphs apart, the nodes of each in a random order: that of a file often gives edges away."""
    n, n_graphs = len(held.graph_of), len(held.labels)
    mixed = rng.permutation(n)
    order = mixed[held.graph_of[mixed].argsort(stable=True)]
    sizes = held.graph_of.bincount(minlength=n_graphs)
    edges = ordered(torch.empty_like(order).scatter_(0, order, torch.arange(n))[held.edges])
    graph_of = held.graph_of[order][edges[0]]  # rises, as the edges do
    edges = edges - (sizes.cumsum(0) - sizes)[graph_of]
    parts = edges.split(graph_of.bincount(minlength=n_graphs).tolist(), dim=1)
    features = held.features[order].float().split(sizes.tolist())
    return tuple(Graph(*part) for part in zip(features, parts, strict=True))
