"""Explanations on the planted graph: what they give away, what is spent and refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mi_attack_gsef.attack import carry_back, edges_of, nearest, normalised, roots_of
from mi_graph.cases import known_of
from mi_graph.networks import EXPLAIN
from micore.contracts import Case
from micore.errors import AccessDenied, UsageError
from micore.runtime import Random
from micore.testing import Trial
from micore.threat import Access, Spending

N = 60


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("gsef")


def test_alike_explanations_tell_more_than_alike_features(toy: Trial) -> None:
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.recovered(toy.run()[1]) > toy.recovered(list(floors["feature-cosine"])) + 0.2


def test_learned_graphs_tell_edges_and_follow_the_seed(toy: Trial) -> None:
    attack = toy.attack(method="gsef")
    found, again = (toy.run(attack)[1] for _ in range(2))
    assert toy.recovered(found) > 0.3
    assert found[0].samples == again[0].samples
    assert Trial("gsef", seed=1).run(attack)[1][0].samples != found[0].samples


def test_an_explanation_is_the_gradient_times_the_features_over_the_neighbourhood(toy: Trial) -> None:
    known, module = known_of(toy.cases[0]), toy.lab.module(toy.setting).eval()
    given = toy.target().ask(EXPLAIN, known.nodes(torch.tensor([4])))
    graph = toy.dataset.split("private").graph  # type: ignore[attr-defined]
    inputs = toy.modality.adapter(toy.dataset.input)(toy.dataset.split("private").take([0]))
    mask = torch.ones(known.features.shape[1], requires_grad=True)
    logits = module(replace(inputs, features=graph.features * mask, rows=torch.tensor([4])))  # type: ignore[type-var]
    (gradient,) = torch.autograd.grad(logits.log_softmax(dim=1).max(), mask)
    torch.testing.assert_close(given[0], gradient.abs(), rtol=1e-3, atol=1e-5)


def test_graphs_begin_with_nearest_neighbours_and_stay_symmetric() -> None:
    values = Random(0).normal((9, 4))
    begin = nearest(values, 3)
    assert begin.sum(dim=1).tolist() == [4] * 9
    assert begin.diagonal().tolist() == [1] * 9
    edges = edges_of(6 * begin - 6)
    assert torch.equal(edges, edges.T)
    assert edges.min() == pytest.approx(0.0025, abs=1e-4)
    assert normalised(torch.ones(4, 4)).sum().item() == pytest.approx(4)


def test_gradients_by_hand_are_those_of_autograd() -> None:
    free, slope = (Random(0).normal((7, 7)) - 0.5).requires_grad_(True), Random(1).normal((7, 7))
    (expected,) = torch.autograd.grad(normalised(edges_of(free)), free, slope)
    adjacency = edges_of(free.detach())
    carry_back(slope.clone(), normalised(adjacency), roots_of(adjacency), free)
    torch.testing.assert_close(free.grad, expected)


@pytest.mark.parametrize(("method", "queries"), [("similarity", N), ("gsef", 2 * N)])
def test_each_node_is_asked_about_once_for_each_need(toy: Trial, method: str, queries: int) -> None:
    target, _ = toy.run(toy.attack(method=method, epochs=1))
    assert target.ledger.total == Spending(queries=queries)
    assert target.ledger.used_access == Access.SCORES


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    target, (item,) = toy.run(toy.attack(batch_size=10), budget=35)
    assert target.ledger.total.queries == 30
    assert not item.complete
    assert toy.recovered([item]) > 0


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.LABEL), toy.cases, None, toy.runtime))
    some = replace(known_of(toy.cases[0]), pairs=torch.tensor([[0], [1]]))
    case = Case(id="graph-0", goal="structure", evidence=some)
    with pytest.raises(UsageError, match="too many"):
        list(toy.attack(method="gsef").run(toy.target(), [case], None, toy.runtime))
    (item,) = toy.attack().run(toy.target(), [case], None, toy.runtime)
    assert item.samples.graphs[0].scores.shape == (1,)
