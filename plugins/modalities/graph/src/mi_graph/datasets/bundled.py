"""Graphs that come with networkx and PyTorch Geometric, or are drawn: no file is needed."""

from __future__ import annotations

from typing import Any

import networkx
import torch
from pydantic import Field
from torch import Tensor

from mi_graph.datasets.dataset import NodeDataset, node_dataset
from mi_graph.datasets.options import GraphOptions
from mi_graph.graphs import Graph, n_pairs
from micore.kit.dataset_options import read_options, refuse_location
from micore.runtime import Random, derive_seed


def open_karate(location: str | None, **options: Any) -> NodeDataset:
    """Open Zachary's karate club: 34 members, 78 friendships, the two sides of its split as classes.

    Zachary: "An Information Flow Model for Conflict and Fission in Small Groups", 1977. Features are the nodes'
    numbers, one-hot. Raises: DataError.
    """
    graph = networkx.karate_club_graph()
    sides = [graph.nodes[node]["club"] for node in graph]
    return _small(location, "karate", graph, sides, options)


def open_les_mis(location: str | None, **options: Any) -> NodeDataset:
    """Open who appears with whom in "Les Miserables": 77 characters, 254 pairs, communities as classes.

    Knuth: "The Stanford GraphBase", 1993. Communities are those of Clauset, Newman and Moore (2004), by networkx.
    Features are the nodes' numbers, one-hot. Raises: DataError.
    """
    graph = networkx.les_miserables_graph()
    communities = networkx.community.greedy_modularity_communities(graph)
    member_of = {node: str(place) for place, members in enumerate(communities) for node in members}
    return _small(location, "les-mis", graph, [member_of[node] for node in graph], options)


def _small(
    location: str | None, name: str, graph: networkx.Graph, groups: list[str], given: dict[str, Any]
) -> NodeDataset:
    refuse_location(name, location)
    settings = read_options(GraphOptions, name, given)
    numbers = {node: place for place, node in enumerate(graph)}
    edges = torch.tensor([[numbers[one], numbers[two]] for one, two in graph.edges], dtype=torch.int64).T
    classes = tuple(sorted(set(groups)))
    return node_dataset(
        name, torch.eye(len(numbers)), edges, torch.tensor([classes.index(group) for group in groups]), classes,
        train=None, per_class=settings.per_class, kept=settings.kept, seed=settings.seed,
        options=settings.model_dump(mode="json"),
    )  # fmt: skip


class BlocksOptions(GraphOptions):
    """Options of ``blocks``."""

    nodes: int = Field(400, ge=8, le=100_000, description="Nodes of the private graph, and of the public one")
    groups: int = Field(4, ge=2, description="Classes; nodes of one class are joined more often")
    degree: float = Field(6.0, gt=0, description="Mean number of edges of a node")
    homophily: float = Field(0.8, gt=0, le=1, description="Share of the edges that join nodes of one class")
    kinds: int = Field(1, ge=1, description="Kinds of edges; most of those within classes are of the first")
    words: int = Field(64, ge=2, description="Features of a node: words that it uses or not")
    topical: float = Field(0.5, ge=0, le=1, description="Share of a node's words that its class prefers")


def open_blocks(location: str | None, **options: Any) -> NodeDataset:
    """Draw a graph of communities whose nodes use words: a planted partition. Equal options draw equal graphs.

    Raises: DataError.
    """
    refuse_location("blocks", location)
    settings = read_options(BlocksOptions, "blocks", options)
    features, edges, labels = _drawn(settings, "private")
    others, other_edges, other_labels = _drawn(settings, "public")
    kinds = None if settings.kinds == 1 else _kinds(edges, labels, settings)
    return node_dataset(
        "blocks", features, edges, labels, tuple(f"group-{group}" for group in range(settings.groups)), train=None,
        per_class=settings.per_class, kept=settings.kept, seed=settings.seed, options=settings.model_dump(mode="json"),
        public=Graph(others, other_edges), public_labels=other_labels, kinds=kinds,
    )  # fmt: skip


def _drawn(settings: BlocksOptions, purpose: str) -> tuple[Tensor, Tensor, Tensor]:
    """Draw features (n, F), edges (2, m) and labels (n,)."""
    n, groups = settings.nodes, settings.groups
    rng = Random(derive_seed("blocks", settings.seed, purpose))
    labels = torch.arange(n) % groups
    return _words(labels, settings, rng), _edges(labels, settings, rng), labels


def _words(labels: Tensor, settings: BlocksOptions, rng: Random) -> Tensor:
    """Draw which words a node uses: an eighth of all, a share of them from those that its class prefers."""
    n, width = len(labels), settings.words
    preferred = torch.arange(width) % settings.groups == labels[:, None]
    share = preferred / preferred.sum(dim=1, keepdim=True)
    chances = settings.topical * share + (1 - settings.topical) / width
    return (rng.uniform((n, width)) < (chances * width / 8).clamp(max=1)).float()


def _edges(labels: Tensor, settings: BlocksOptions, rng: Random) -> Tensor:
    """Draw so many different pairs, a share of them within classes; pairs are drawn by number, never all listed."""
    n = len(labels)
    wanted = min(round(n * settings.degree / 2), n_pairs(n) // 2)
    found = torch.empty(2, 0, dtype=torch.int64)
    while found.shape[1] < wanted:
        draws = rng.integers(n, (2, 4 * wanted))
        inside = labels[draws[0]] == labels[draws[1]]
        # among random pairs, 1 in `groups` lies within a class: thin the others out to the wanted share
        odds = (1 - settings.homophily) / settings.homophily / (settings.groups - 1)
        keep = inside | (rng.uniform((4 * wanted,)) < odds)
        pairs = draws[:, keep & (draws[0] != draws[1])]
        pairs = torch.stack([pairs.min(dim=0).values, pairs.max(dim=0).values])
        found = torch.unique(torch.cat([found, pairs], dim=1), dim=1)
    chosen = rng.permutation(found.shape[1])[:wanted].sort().values
    return found[:, chosen]


OF_FIRST_KIND = 0.8
"""Of the edges within classes: of the first kind. Of those between classes, as many are of the other kinds."""


def _kinds(edges: Tensor, labels: Tensor, settings: BlocksOptions) -> Tensor:
    """Draw of which kind each edge is, int64 (m,)."""
    rng = Random(derive_seed("blocks", settings.seed, "kinds"))
    inside = labels[edges[0]] == labels[edges[1]]
    is_first = rng.uniform((edges.shape[1],)) < torch.where(inside, OF_FIRST_KIND, 1 - OF_FIRST_KIND)
    return torch.where(is_first, 0, 1 + rng.integers(settings.kinds - 1, (edges.shape[1],)))
