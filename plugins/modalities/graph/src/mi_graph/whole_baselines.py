"""What many public graphs give of private ones without the target: floors beside every attack on whole graphs.

Zhang, Chen, Backes, Shen, Zhang: "Inference Attacks Against Graph Neural Networks", USENIX Security 2022, compare
histograms of recovered and private graphs; those of graphs that were drawn without looking are alike, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from mi_graph.datasets.many import GraphsDataset
from mi_graph.evidence import KnownGraph
from mi_graph.graphs import Graph, all_pairs, n_pairs
from mi_graph.whole_cases import known_graph_of, recovered
from micore.contracts import Case, Reconstruction
from micore.runtime import Random, derive_seed

Draw = Callable[[KnownGraph, Random], Graph]


def whole_floors(cases: Sequence[Case], dataset: GraphsDataset) -> Mapping[str, Sequence[Reconstruction]]:
    """Return for each case a graph that looks at nothing but public graphs and the number of nodes.

    ``erdos-renyi``: random edges, as many as public graphs have of their pairs; ``random-public``: a public graph;
    ``public-of-size``: one of those whose number of nodes is nearest.
    """
    graphs = dataset.split("public").graphs
    draws: dict[str, Draw] = {
        "erdos-renyi": partial(_erdos_renyi, mean_density(graphs)),
        "random-public": lambda _, rng: graphs[int(rng.integers(len(graphs), (1,)))],
        "public-of-size": partial(_of_size, graphs),
    }
    return {
        name: [recovered(case, draw(known_graph_of(case), _rng(dataset, name, case))) for case in cases]
        for name, draw in draws.items()
    }


def mean_density(graphs: Sequence[Graph]) -> float:
    """Return the mean share of pairs of nodes that are edges, over graphs that have pairs."""
    shares = [graph.n_edges / n_pairs(graph.n_nodes) for graph in graphs if graph.n_nodes > 1]
    return sum(shares) / max(1, len(shares))


def _rng(dataset: GraphsDataset, name: str, case: Case) -> Random:
    return Random(derive_seed(dataset.fingerprint, name, case.id))


def _erdos_renyi(density: float, known: KnownGraph, rng: Random) -> Graph:
    pairs = all_pairs(known.n_nodes)
    return Graph(torch.empty(known.n_nodes, 0), pairs[:, rng.uniform((pairs.shape[1],)) < density])


def _of_size(graphs: Sequence[Graph], known: KnownGraph, rng: Random) -> Graph:
    distances = [abs(graph.n_nodes - known.n_nodes) for graph in graphs]
    nearest = [graph for graph, distance in zip(graphs, distances, strict=True) if distance == min(distances)]
    return nearest[int(rng.integers(len(nearest), (1,)))]
