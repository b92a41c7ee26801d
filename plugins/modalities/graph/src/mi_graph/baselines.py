"""What the evidence gives without the target: floors beside every attack on a graph's structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mi_graph.batch import Graphs
from mi_graph.cases import graph_data, known_of
from mi_graph.datasets.many import GraphsDataset
from mi_graph.evidence import Known
from mi_graph.graphs import Graph, likeliest
from mi_graph.similarity import cosine, same, scores_of
from mi_graph.whole_baselines import whole_floors
from micore.contracts import Case, Dataset, Reconstruction

LABEL_WEIGHT = 0.5
"""What an equal label is worth beside the cosine of features."""

Scores = Callable[[Known, Graph], Tensor]

EQUAL_KNOWLEDGE = ("feature-cosine", "same-label", "cosine-and-label")
"""Floors that use what the attack may use; the others say what the setting itself gives away."""


def scored(case: Case, known: Known, scores: Tensor) -> Reconstruction:
    """Give back a graph: scores (p,) of the pairs that are asked about, and as many likeliest as there are edges."""
    scores = scores.detach().float().cpu()
    edges = likeliest(scores, known.n_nodes, known.n_edges, known.pairs)
    graph = Graph(torch.empty(known.n_nodes, 0), edges, scores=scores, pairs=known.pairs)
    return Reconstruction(case=case, samples=Graphs.whole([graph]), scores=torch.zeros(1))


def floors(cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
    """Return for each case what its evidence gives without a target, and what an order of nodes or degrees would.

    ``feature-cosine``, with labels ``same-label`` and ``cosine-and-label``; ``node-index``: neighbouring numbers, which
    tell nothing where nodes stand in a random order; ``degree-product``: what true degrees would tell. Where the
    private graphs are many: `mi_graph.whole_baselines.whole_floors`.
    """
    if isinstance(dataset, GraphsDataset):
        return whole_floors(cases, dataset)
    private = graph_data(dataset).graph
    found = {}
    for name, score in FLOORS.items():
        if all(name not in LABELLED or known_of(case).labels is not None for case in cases):
            found[name] = [scored(case, known_of(case), score(known_of(case), private)) for case in cases]
    return found


def feature_cosine(known: Known) -> Tensor:
    """Return the cosines of features."""
    return scores_of(known.features, cosine, known.pairs)


def same_label(known: Known) -> Tensor:
    """Return 1 for pairs of one class, else 0."""
    if known.labels is None:
        raise ValueError("the evidence holds no labels")
    return scores_of(known.labels[:, None].float(), same, known.pairs)


def _index(known: Known, _: Graph) -> Tensor:
    one, two = known.asked()
    return (one - two).float()


def _degrees(known: Known, private: Graph) -> Tensor:
    one, two = private.degrees()[known.asked()].float()
    return one * two


LABELLED = ("same-label", "cosine-and-label")
FLOORS: Mapping[str, Scores] = {
    "feature-cosine": lambda known, _: feature_cosine(known),
    "same-label": lambda known, _: same_label(known),
    "cosine-and-label": lambda known, _: feature_cosine(known) + LABEL_WEIGHT * same_label(known),
    "node-index": _index,
    "degree-product": _degrees,
}
