"""Small graphs that are drawn, and told apart by a shape within them: no file is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mi_graph.datasets.many import GraphsDataset, SideBySide, graphs_dataset
from mi_graph.datasets.options import ManyGraphsOptions
from mi_graph.graphs import all_pairs
from micore.kit.dataset_options import read_options, refuse_location
from micore.runtime import Random, derive_seed

SMALLEST = 4
"""Nodes of the smallest shape."""

Pairs = list[tuple[int, int]]


class MotifsOptions(ManyGraphsOptions):
    """Options of ``motifs``."""

    graphs: int = Field(300, ge=12, le=100_000, description="Graphs of all three parts")
    kinds: int = Field(3, ge=2, le=4, description="Classes: with a clique, a ring, a star, a ladder")
    nodes: int = Field(16, ge=8, le=200, description="Of the largest graph; the smallest has half as many")
    features: int = Field(4, ge=2, description="Of a node: the constant 1, and noise")
    signal: float = Field(0.5, ge=0, description="How much the class shifts one feature's noise, in deviations")


def open_motifs(location: str | None, **options: Any) -> GraphsDataset:
    """Draw graphs: a clique, ring, star or ladder of varying size that random trees grow on. Labels tell the shape.

    Equal options draw equal graphs. Raises: DataError.
    """
    refuse_location("motifs", location)
    settings = read_options(MotifsOptions, "motifs", options)
    labels = torch.arange(settings.graphs) % settings.kinds
    rng = Random(derive_seed("motifs", settings.seed, "shapes"))
    drawn = [_drawn(list(SHAPES.values())[label], settings, rng) for label in labels.tolist()]
    sizes = torch.tensor([n for n, _ in drawn])
    starts = (sizes.cumsum(0) - sizes).tolist()
    edges = torch.cat([torch.tensor(pairs).T + start for (_, pairs), start in zip(drawn, starts, strict=True)], dim=1)
    graph_of = torch.arange(settings.graphs).repeat_interleave(sizes)
    held = SideBySide(
        features=_features(labels[graph_of], settings), edges=edges, graph_of=graph_of, labels=labels,
        classes=tuple(SHAPES)[: settings.kinds],
    )  # fmt: skip
    return graphs_dataset("motifs", held, settings)


def _drawn(shape: Callable[[int], Pairs], settings: MotifsOptions, rng: Random) -> tuple[int, Pairs]:
    """Draw the number of nodes and the edges of one graph.

    The shape takes a third to two thirds of the nodes; each further one joins one of those that are there.
    """
    n = settings.nodes // 2 + _below(settings.nodes - settings.nodes // 2 + 1, rng)
    low, high = max(SMALLEST, n // 3), max(SMALLEST, 2 * n // 3)
    size = low + _below(high - low + 1, rng)
    return n, [*shape(size), *((_below(node, rng), node) for node in range(size, n))]


def _below(high: int, rng: Random) -> int:
    return int(rng.integers(high, (1,)))


def _features(classes: Tensor, settings: MotifsOptions) -> Tensor:
    """Return 1 and noise for each node, (N, F); the noise of one feature is shifted."""
    rng = Random(derive_seed("motifs", settings.seed, "features"))
    values = rng.normal((len(classes), settings.features))
    values[:, 0] = 1
    rows, columns = torch.arange(len(classes)), 1 + classes % (settings.features - 1)
    values[rows, columns] += settings.signal
    return values


def _clique(n: int) -> Pairs:
    return [(one, two) for one, two in all_pairs(n).T.tolist()]


def _ring(n: int) -> Pairs:
    return [(node, (node + 1) % n) for node in range(n)]


def _star(n: int) -> Pairs:
    return [(0, node) for node in range(1, n)]


def _ladder(n: int) -> Pairs:
    return [(node, node + 2) for node in range(n - 2)] + [(node, node + 1) for node in range(0, n - 1, 2)]


SHAPES: Mapping[str, Callable[[int], Pairs]] = {"clique": _clique, "ring": _ring, "star": _star, "ladder": _ladder}
