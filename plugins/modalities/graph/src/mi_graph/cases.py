"""What runs on graphs attack: the structure of a private graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mi_graph.batch import Graphs
from mi_graph.datasets.dataset import NodeDataset
from mi_graph.datasets.many import GraphsDataset
from mi_graph.evidence import KINDS, Known
from mi_graph.graphs import Graph, n_pairs, ordered, places_of
from mi_graph.whole_cases import whole_cases, whole_truths
from micore.contracts import Case, Dataset, Truth
from micore.errors import UsageError
from micore.runtime import Random, derive_seed

ALL_PAIRS_UP_TO = 5000
"""Nodes of the largest graph of which all pairs are asked about."""

NEGATIVES = 20
"""Of larger graphs: pairs without an edge for each edge."""


KNOWN_SHARE = 0.5
"""Of the edges, where the evidence holds some (He et al., 2021: half of the pairs are learned from)."""

KEPT, REMOVED, KNOWN, OTHER = 1.0, 0.5, 0.25, 0.0
"""What the scores of `marked` tell of pairs: edges to be found, those that were removed or are known before, others."""


def structure_cases(dataset: Dataset | None, choice: str | None, evidence: str | None) -> list[Case]:
    """Return the one case of goal ``structure``, the private graph; one for each where these are many.

    Raises: UsageError without a data set of graphs, and for a choice or evidence that does not fit.
    """
    if isinstance(dataset, GraphsDataset):
        return whole_cases(dataset, choice, evidence)
    kind = evidence or KINDS[0]
    if kind not in KINDS:
        raise UsageError(f"--evidence {kind}: goal 'structure' has none such", hint="one of " + ", ".join(KINDS))
    if choice not in (None, "0", "all"):
        raise UsageError(f"--classes {choice}: there is one private graph", hint="leave --classes out")
    private = graph_data(dataset)
    known = Known(
        features=private.graph.features, n_edges=private.graph.n_edges, pairs=asked_pairs(private),
        kinds=private.graph.counts_of_kinds(),
        labels=private.labels if "labels" in kind else None, edges=known_edges(private) if "edges" in kind else None,
    )  # fmt: skip
    return [Case(id="graph-0", goal="structure", evidence=known)]


def graph_data(dataset: Dataset | None) -> NodeDataset:
    """Return a data set as one of a private graph.

    Raises: UsageError when it is none.
    """
    if not isinstance(dataset, NodeDataset):
        raise UsageError("goal 'structure' attacks a data set with a private graph", hint="give --data")
    return dataset


def asked_pairs(dataset: NodeDataset) -> Tensor | None:
    """Return the pairs that an attack is asked about: all (None), or of a large graph its edges among many others."""
    graph = dataset.graph
    if graph.n_nodes <= ALL_PAIRS_UP_TO:
        return None
    edges = torch.cat([graph.edges, dataset.removed], dim=1)
    rng = Random(derive_seed(dataset.fingerprint, "pairs"))
    others = rng.integers(graph.n_nodes, (2, min(NEGATIVES * edges.shape[1], n_pairs(graph.n_nodes) // 4)))
    return ordered(torch.cat([edges, others], dim=1))


def known_edges(dataset: NodeDataset) -> Tensor:
    """Return the edges that an adversary holds who holds some, (2, k): the same ones of the same data set.

    Raises: UsageError where none would be left to be found.
    """
    edges = dataset.graph.edges
    if edges.shape[1] < 2:
        raise UsageError(f"--evidence edges: {dataset.name} has {edges.shape[1]} edge, of which a part is known")
    order = Random(derive_seed(dataset.fingerprint, "known edges")).permutation(edges.shape[1])
    return edges[:, order[: round(KNOWN_SHARE * edges.shape[1])].sort().values]


def known_of(case: Case) -> Known:
    """Return what is known of a case's graph.

    Raises: UsageError for a case of another goal.
    """
    if not isinstance(case.evidence, Known):
        raise UsageError(f"case {case.id} holds no evidence of a graph")
    return case.evidence


def truths(cases: Sequence[Case], dataset: Dataset) -> dict[str, Truth]:
    """Return the private graph behind each case; see `marked`. Edges that its evidence holds are marked as known."""
    if isinstance(dataset, GraphsDataset):
        return whole_truths(cases, dataset)
    private = graph_data(dataset)
    pairs = asked_pairs(private)
    return {
        case.id: Truth(sample=Graphs.whole([marked(private, pairs, getattr(case.evidence, "edges", None))]))
        for case in cases
        if case.goal == "structure"
    }


def marked(dataset: NodeDataset, pairs: Tensor | None, known: Tensor | None = None) -> Graph:
    """Return the private graph, without features, with scores that tell what pairs are.

    Edges are 1, those that were removed before 0.5, those that the adversary holds (known, (2, k)) 0.25, others 0.
    """
    graph, n = dataset.graph, dataset.graph.n_nodes
    asked = None if pairs is None else places_of(pairs, n)
    found = torch.full((n_pairs(n) if pairs is None else pairs.shape[1],), OTHER)
    for edges, value in ((dataset.removed, REMOVED), (graph.edges, KEPT), (known, KNOWN)):
        if edges is not None:
            places = places_of(edges, n)
            found[places if asked is None else torch.searchsorted(asked, places)] = value
    return Graph(graph.features[:, :0], graph.edges, scores=found, pairs=pairs)
