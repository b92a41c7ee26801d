"""What the evidence gives without the target: floors beside every attack on a graph's structure.

From known edges link prediction tells others: Adamic and Adar, "Friends and Neighbors on the Web", 2003 (common
neighbours), and the perceptron of link stealing on features alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from mi_graph.batch import Graphs
from mi_graph.cases import graph_data, known_of
from mi_graph.datasets.many import GraphsDataset
from mi_graph.evidence import Known
from mi_graph.graphs import Graph, likeliest
from mi_graph.links import Learning, Links, learned
from mi_graph.pair_features import PairViews
from mi_graph.similarity import cosine, same, scores_of
from mi_graph.whole_baselines import whole_floors
from micore.contracts import Case, Dataset, Reconstruction
from micore.runtime import Random, Runtime, derive_seed

LABEL_WEIGHT = 0.5
"""What an equal label is worth beside the cosine of features."""

Scores = Callable[[Known, Graph], Tensor]

EQUAL_KNOWLEDGE = (
    "feature-cosine", "same-label", "cosine-and-label", "common-neighbours", "feature-links", "neighbour-links",
)  # fmt: skip
"""Floors that use what the attack may use; the others say what the setting itself gives away."""


def scored(case: Case, known: Known, scores: Tensor) -> Reconstruction:
    """Give back a graph: scores (p,) of the pairs that are asked about, and as many likeliest as there are edges.

    Edges that are known are among these, whatever their scores.
    """
    scores = scores.detach().float().cpu()
    ranked = scores.index_fill(0, known.known_places(), torch.inf)
    edges = likeliest(ranked, known.n_nodes, known.n_edges, known.pairs)
    graph = Graph(torch.empty(known.n_nodes, 0), edges, scores=scores, pairs=known.pairs)
    return Reconstruction(case=case, samples=Graphs.whole([graph]), scores=torch.zeros(1))


def floors(cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
    """Return for each case what its evidence gives without a target, and what an order of nodes or degrees would.

    ``feature-cosine``, with labels ``same-label`` and ``cosine-and-label``. With edges ``common-neighbours`` along
    these, and what a perceptron learns from them: ``feature-links`` of features, and labels where they are known,
    ``neighbour-links`` of those of neighbours as well. ``node-index``: neighbouring numbers, which tell nothing where
    nodes stand in a random order; ``degree-product``: what true degrees would tell. Where the
    private graphs are many: `mi_graph.whole_baselines.whole_floors`.
    """
    if isinstance(dataset, GraphsDataset):
        return whole_floors(cases, dataset)
    private = graph_data(dataset).graph
    return {
        name: [scored(case, known_of(case), score(known_of(case), private)) for case in cases]
        for name, (needs, score) in FLOORS.items()
        if all(getattr(known_of(case), part) is not None for case in cases for part in needs)
    }


def feature_cosine(known: Known) -> Tensor:
    """Return the cosines of features."""
    return scores_of(known.features, cosine, known.pairs)


def same_label(known: Known) -> Tensor:
    """Return 1 for pairs of one class, else 0.

    Raises: ValueError for evidence without labels.
    """
    return scores_of(_held(known.labels, "labels")[:, None].float(), same, known.pairs)


def common_neighbours(known: Known) -> Tensor:
    """Return how many neighbours pairs share along known edges, each over the logarithm of its degree.

    Raises: ValueError for evidence without edges.
    """
    joined = _adjacency(_held(known.edges, "edges"), known.n_nodes)
    degrees = numpy.asarray(joined.sum(axis=1)).ravel()
    shared = (joined @ sparse.diags_array(1 / numpy.log(degrees.clip(min=2))) @ joined).tocsr()
    one, two = known.asked().numpy()
    rows = max(1, len(one) // PARTS)
    parts = [shared[one[i : i + rows], two[i : i + rows]] for i in range(0, len(one), rows)]
    return torch.from_numpy(numpy.concatenate([numpy.asarray(part).ravel() for part in parts])).float()


PARTS = 16
"""Into which the pairs are cut that are looked up in a sparse matrix."""


def feature_links(known: Known) -> Tensor:
    """Return what a perceptron makes of features, and labels, that has learned from the known edges.

    Raises: ValueError for evidence without edges.
    """
    views = PairViews(_told(known))
    return _learned([Links(views, _held(known.edges, "edges"))], views, known)


def neighbour_links(known: Known) -> Tensor:
    """Return what a perceptron makes of features, and labels, of nodes and of their neighbours along known edges.

    It learns from one half of these while the other says who is a neighbour, as no pair that is asked about is an edge
    that is known. Raises: ValueError for evidence without edges.
    """
    edges, own = _held(known.edges, "edges"), _told(known)
    order = Random(derive_seed("neighbour-links", known.n_nodes, edges.shape[1])).permutation(edges.shape[1])
    halves = [edges[:, half] for half in order.tensor_split(2)]
    folds = [
        Links(PairViews(own + _spread(own, other)), half, other)
        for half, other in zip(halves, halves[::-1], strict=True)
        if half.numel()
    ]
    return _learned(folds, PairViews(own + _spread(own, edges)), known)


def _learned(links: Sequence[Links], views: PairViews, known: Known) -> Tensor:
    runtime = Runtime(device=known.features.device)
    return learned(links, Learning(), runtime, "floor").scores(views, known.pairs)


def _told(known: Known) -> tuple[Tensor, ...]:
    """Return what is known of nodes: features (n, F), and classes (n, C) one-hot."""
    labels = () if known.labels is None else (functional.one_hot(known.labels).float(),)
    return (known.features, *labels)


def _spread(values: Sequence[Tensor], edges: Tensor) -> tuple[Tensor, ...]:
    """Return the means of values (n, d) over nodes and their neighbours, taken twice."""
    n = len(values[0])
    joined = (_adjacency(edges, n) + sparse.eye_array(n, dtype=numpy.float32)).tocsr()
    means = sparse.diags_array(1 / numpy.asarray(joined.sum(axis=1)).ravel()) @ joined
    return tuple(torch.from_numpy(means @ (means @ part.numpy())).float() for part in values)


def _adjacency(edges: Tensor, n: int) -> sparse.csr_array:
    one, two = edges.numpy()
    ends = numpy.concatenate([one, two]), numpy.concatenate([two, one])
    return sparse.coo_array((numpy.ones(len(ends[0]), numpy.float32), ends), shape=(n, n)).tocsr()


def _held(part: Tensor | None, name: str) -> Tensor:
    if part is None:
        raise ValueError(f"the evidence holds no {name}")
    return part


def _index(known: Known, _: Graph) -> Tensor:
    return _of_numbers(known, torch.arange(known.n_nodes).float(), torch.sub)


def _degrees(known: Known, private: Graph) -> Tensor:
    return _of_numbers(known, private.degrees().float(), torch.mul)


def _of_numbers(known: Known, numbers: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return what two numbers make, of the pairs that are asked about (p,); numbers: one of each node, (n,)."""
    if known.pairs is not None:
        return combine(*numbers[known.pairs])
    return scores_of(numbers[:, None], lambda one, two: combine(one, two.T))  # a list of all pairs would be large


FLOORS: Mapping[str, tuple[tuple[str, ...], Scores]] = {
    "feature-cosine": ((), lambda known, _: feature_cosine(known)),
    "same-label": (("labels",), lambda known, _: same_label(known)),
    "cosine-and-label": (("labels",), lambda known, _: feature_cosine(known) + LABEL_WEIGHT * same_label(known)),
    "common-neighbours": (("edges",), lambda known, _: common_neighbours(known)),
    "feature-links": (("edges",), lambda known, _: feature_links(known)),
    "neighbour-links": (("edges",), lambda known, _: neighbour_links(known)),
    "node-index": ((), _index),
    "degree-product": ((), _degrees),
}
"""By name what of the evidence a floor needs, and its scores."""
