"""Evidence that holds some of the edges: which they are, and what it gives without a target."""

from __future__ import annotations

import math

import networkx
import pytest
import torch

from mi_graph.baselines import common_neighbours, feature_links, floors, neighbour_links, same_label, scored
from mi_graph.cases import KNOWN, known_of, marked, structure_cases, truths
from mi_graph.datasets.bundled import open_blocks, open_karate
from mi_graph.evidence import KINDS, Known
from mi_graph.graphs import all_pairs, n_pairs, places_of
from mi_graph.measures import auc
from micore.errors import UsageError

DATA = open_blocks(None, nodes=150, kept=0.7)


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_holds_what_it_is_called(kind: str) -> None:
    known = known_of(structure_cases(DATA, None, kind)[0])
    assert known.kind == kind
    assert (known.labels is not None, known.edges is not None) == ("labels" in kind, "edges" in kind)


def test_half_of_the_edges_are_known_and_always_the_same() -> None:
    (one,), (two,) = (structure_cases(DATA, None, kind) for kind in ("edges", "labels+edges"))
    edges = known_of(one).edges
    assert edges is not None
    assert edges.shape[1] == round(DATA.graph.n_edges / 2)
    assert torch.equal(edges, known_of(two).edges)  # type: ignore[arg-type]
    private = places_of(DATA.graph.edges, 150)
    assert torch.isin(places_of(edges, 150), private).all()
    assert known_of(one).n_edges == DATA.graph.n_edges


def test_truth_marks_what_is_known() -> None:
    (case,) = structure_cases(DATA, None, "edges")
    known = known_of(case)
    truth = truths([case], DATA)[case.id].sample.graphs[0]
    assert truth.scores is not None
    assert torch.equal((truth.scores == KNOWN).nonzero().flatten(), places_of(known.edges, 150))  # type: ignore[arg-type]
    assert int((truth.scores == 1).sum()) == DATA.graph.n_edges - round(DATA.graph.n_edges / 2)
    assert int((truth.scores == 0.5).sum()) == DATA.removed.shape[1]


def test_known_edges_are_given_back_whatever_their_scores() -> None:
    (case,) = structure_cases(DATA, None, "edges")
    known = known_of(case)
    assert known.edges is not None
    scores = -torch.arange(float(n_pairs(150)))
    graph = scored(case, known, scores).samples.graphs[0]
    assert graph.n_edges == DATA.graph.n_edges
    assert torch.isin(places_of(known.edges, 150), places_of(graph.edges, 150)).all()
    assert torch.equal(graph.scores, scores)  # type: ignore[arg-type]


def test_known_edges_of_a_large_graph_are_found_among_the_asked_pairs() -> None:
    data = open_blocks(None, nodes=5200, degree=2.0)
    (case,) = structure_cases(data, None, "edges")
    known = known_of(case)
    assert known.pairs is not None
    assert torch.equal(known.pairs[:, known.known_places()], known.edges)  # type: ignore[arg-type]
    truth = marked(data, known.pairs, known.edges).scores
    assert truth is not None
    assert int((truth == KNOWN).sum()) == round(data.graph.n_edges / 2)


def test_common_neighbours_are_those_of_networkx() -> None:
    (case,) = structure_cases(open_karate(None), None, "edges")
    known = known_of(case)
    assert known.edges is not None
    graph = networkx.Graph(known.edges.T.tolist())
    graph.add_nodes_from(range(34))
    pairs = all_pairs(34).T.tolist()
    expected = [score for _, _, score in networkx.adamic_adar_index(graph, pairs)]
    assert any(expected)
    torch.testing.assert_close(common_neighbours(known), torch.tensor(expected))
    assert not math.isnan(sum(expected))


def test_floors_use_what_is_known_and_nothing_else() -> None:
    names = {kind: set(floors(structure_cases(DATA, None, kind), DATA)) for kind in KINDS}
    labelled, joined = {"same-label", "cosine-and-label"}, {"common-neighbours", "feature-links", "neighbour-links"}
    assert names["features"] == {"feature-cosine", "node-index", "degree-product"}
    assert names["labels"] == names["features"] | labelled
    assert names["edges"] == names["features"] | joined
    assert names["labels+edges"] == names["features"] | labelled | joined


def test_what_learns_from_known_edges_tells_others_without_a_target() -> None:
    """It tells edges that the target has no better than those that were removed: it saw neither."""
    (case,) = structure_cases(open_blocks(None, nodes=400, kept=0.7), None, "edges")
    known = known_of(case)
    truth = marked(open_blocks(None, nodes=400, kept=0.7), None, known.edges).scores
    assert truth is not None
    counted = (truth == 1) | (truth == 0)
    either = truth >= 0.5
    for floor in (feature_links, neighbour_links):
        scores = floor(known)
        assert torch.equal(scores, floor(known))
        assert auc(scores[counted], truth[counted] == 1) > 0.6
        assert abs(auc(scores[either], truth[either] == 1) - 0.5) < 0.06


def test_what_is_missing_is_said() -> None:
    bare = Known(features=torch.zeros(3, 2), n_edges=1)
    for floor, what in ((same_label, "labels"), (common_neighbours, "edges"), (feature_links, "edges")):
        with pytest.raises(ValueError, match=f"holds no {what}"):
            floor(bare)
    with pytest.raises(UsageError, match="--evidence edges: blocks has 1 edge"):
        structure_cases(open_blocks(None, nodes=8, degree=0.25), None, "edges")
    with pytest.raises(UsageError, match="has none such"):
        structure_cases(DATA, None, "weights")
