"""Figures of edges against hand-made graphs, and the evaluator as the core calls it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mi_evaluator_edges.evaluator import EdgesConfig, EdgesEvaluator
from mi_graph.baselines import scored
from mi_graph.batch import Graphs
from mi_graph.cases import known_of, marked, structure_cases
from mi_graph.datasets.bundled import open_blocks
from mi_graph.graphs import Graph, likeliest, n_pairs, places_of
from mi_graph.measures import auc
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import DataError
from micore.runtime import Random, Runtime

DATA = open_blocks(None, nodes=60, kept=0.5)
TRUTH = marked(DATA, None)
CASE = structure_cases(DATA, None, "labels")[0]
CPU = Runtime.create("cpu")


def subject(scores: Tensor | Graph, name: str = "attack") -> Subject:
    graph = scores
    if isinstance(scores, Tensor):
        graph = Graph(torch.empty(60, 0), likeliest(scores, 60, DATA.graph.n_edges), scores=scores)
    item = Reconstruction(case=CASE, samples=Graphs.whole([graph]), scores=torch.zeros(1))  # type: ignore[list-item]
    return Subject(name=name, reconstructions=[item])


def reference(truth: Mapping[str, Truth] | None = None) -> Reference:
    known = {CASE.id: Truth(sample=Graphs.whole([TRUTH]))} if truth is None else truth
    return Reference(modality=SimpleNamespace(), dataset=SimpleNamespace(), target=None, truth=known)


def measure(*subjects: Subject) -> dict[tuple[str, str], Measurement]:
    evaluator = EdgesEvaluator(EdgesConfig(resamples=50))
    assert isinstance(evaluator, Evaluator)
    return {(item.subject, item.name): item for item in evaluator.evaluate(subjects, reference(), CPU)}


def truth_scores() -> Tensor:
    assert TRUTH.scores is not None
    return TRUTH.scores


def noise() -> Tensor:
    return Random(5).uniform((n_pairs(60),))


def test_a_perfect_attack_has_everything_and_chance_nothing() -> None:
    found = measure(subject(truth_scores()), subject(noise(), "noise"))
    for name in ("auc", "average-precision", "average-precision-balanced", "precision-at-edges", "auc-kept-removed"):
        assert found["attack", name].value == pytest.approx(1)
    assert found["attack", "degree-correlation"].value == pytest.approx(1)
    assert found["attack", "gain"].value == pytest.approx(0.5)
    assert abs(found["noise", "auc"].value - 0.5) < 0.1
    assert found["noise", "average-precision"].value < 0.1
    assert abs(found["noise", "gain"].value) < 0.1


def test_removed_edges_count_in_their_own_figure_alone() -> None:
    """An attack that ranks removed edges first loses nothing but there."""
    swapped = truth_scores().clone()
    swapped[truth_scores() == 0.5] = 2.0
    found = measure(subject(swapped))
    assert found["attack", "auc"].value == pytest.approx(1)
    assert found["attack", "auc-kept-removed"].value == pytest.approx(0)
    blind = (truth_scores() > 0).float()
    assert measure(subject(blind))["attack", "auc-kept-removed"].value == pytest.approx(0.5)


def test_edges_that_were_known_count_nowhere() -> None:
    """Whatever is said of them: no figure moves, and a floor of known edges is compared with."""
    (case,) = structure_cases(DATA, None, "edges")
    held = known_of(case).edges
    assert held is not None
    truth = {case.id: Truth(sample=Graphs.whole([marked(DATA, None, held)]))}
    places, said = places_of(held, 60), truth_scores() + noise()
    evaluator, found = EdgesEvaluator(EdgesConfig(resamples=10)), []
    for value in (-5.0, 0.5, 5.0):
        item = scored(case, known_of(case), said.index_fill(0, places, value))
        subjects = [Subject(name=name, reconstructions=[item]) for name in ("attack", "neighbour-links")]
        found.append({part.name: part for part in evaluator.evaluate(subjects, reference(truth), CPU)})
    figures = [{name: part.value for name, part in parts.items()} for parts in found]
    assert figures[0] == figures[1] == figures[2]
    asked = torch.ones(n_pairs(60), dtype=torch.bool).index_fill(0, places, False) & (truth_scores() != 0.5)
    assert figures[0]["auc"] == pytest.approx(auc(said[asked], truth_scores()[asked] == 1))
    assert figures[0]["gain"] == pytest.approx(0)
    assert f"{held.shape[1]} known edges are left out" in found[0]["auc"].notes


def test_degrees_are_correlated_without_edges_that_were_known() -> None:
    (case,) = structure_cases(DATA, None, "edges")
    held = known_of(case).edges
    assert held is not None
    truth = {case.id: Truth(sample=Graphs.whole([marked(DATA, None, held)]))}
    item = scored(case, known_of(case), truth_scores())
    evaluator = EdgesEvaluator(EdgesConfig(resamples=10))
    subjects = [Subject(name="attack", reconstructions=[item])]
    (found,) = (
        part for part in evaluator.evaluate(subjects, reference(truth), CPU) if part.name == "degree-correlation"
    )
    assert found.value == pytest.approx(1)
    wrong = scored(case, known_of(case), noise())
    subjects = [Subject(name="attack", reconstructions=[wrong])]
    (found,) = (
        part for part in evaluator.evaluate(subjects, reference(truth), CPU) if part.name == "degree-correlation"
    )
    assert abs(found.value) < 0.5


def test_gain_is_over_the_best_of_equal_knowledge() -> None:
    weak, strong = truth_scores() + noise(), truth_scores() + 0.5 * noise()
    oracle = subject(truth_scores(), "degree-product")
    found = measure(subject(strong), subject(weak, "feature-cosine"), subject(noise(), "same-label"), oracle)
    auc = {name: found[name, "auc"].value for name in ("attack", "feature-cosine")}
    gain = found["attack", "gain"]
    assert gain.value == pytest.approx(auc["attack"] - auc["feature-cosine"])
    assert gain.interval is not None
    assert gain.interval.low <= gain.value <= gain.interval.high
    assert found["feature-cosine", "gain"].value == pytest.approx(0)


def test_intervals_are_wider_than_of_pairs_and_hold_their_value() -> None:
    found = measure(subject(truth_scores() + 3 * noise()))
    auc = found["attack", "auc"]
    assert auc.interval is not None
    assert 0.02 < auc.interval.high - auc.interval.low < 0.3
    assert (auc.n, auc.clusters) == (1, 1)
    assert "by chance a precision of" in auc.notes[0]


def test_a_graph_without_scores_is_judged_by_its_edges() -> None:
    half = Graph(torch.empty(60, 0), DATA.graph.edges[:, ::2])
    found = measure(subject(half))
    assert found["attack", "auc"].value == pytest.approx(0.75, abs=0.01)


def test_what_does_not_fit_is_refused() -> None:
    evaluator = EdgesEvaluator(EdgesConfig())
    small = Reconstruction(
        case=CASE, samples=Graphs.whole([Graph(torch.empty(3, 0), DATA.graph.edges[:, :0])]), scores=torch.zeros(1)
    )
    with pytest.raises(DataError, match="a graph of 3 nodes, the private one has 60"):
        evaluator.evaluate([Subject(name="attack", reconstructions=[small])], reference(), CPU)
    with pytest.raises(DataError, match="nobody knows the truth of graph-0"):
        evaluator.evaluate([subject(noise())], reference({}), CPU)


def test_a_large_graph_is_judged_on_the_pairs_that_are_asked_about() -> None:
    data = open_blocks(None, nodes=5200, degree=2.0)
    (case,) = structure_cases(data, None, None)
    pairs = case.evidence.pairs
    assert pairs is not None
    assert pairs.shape[1] < 22 * data.graph.n_edges
    truth = marked(data, pairs)
    assert truth.scores is not None
    assert int((truth.scores == 1).sum()) == data.graph.n_edges
    item = Reconstruction(case=case, samples=Graphs.whole([truth]), scores=torch.zeros(1))
    known = {case.id: Truth(sample=Graphs.whole([truth]))}
    evaluator = EdgesEvaluator(EdgesConfig(resamples=10))
    found = evaluator.evaluate([Subject(name="attack", reconstructions=[item])], reference(known), CPU)
    assert {item.value for item in found if item.name == "auc"} == {1.0}


def test_a_case_of_another_goal_holds_no_evidence() -> None:
    from mi_graph.cases import known_of
    from micore.errors import UsageError

    with pytest.raises(UsageError, match="holds no evidence"):
        known_of(Case(id="class-0", goal="class", label=0))
