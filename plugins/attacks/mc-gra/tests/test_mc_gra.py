"""MC-GRA: its measures, what it recovers on the planted graph, spends and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from mi_attack_mc_gra.measures import MEASURES, SIMILARITIES, undecided
from mi_graph.cases import known_of
from micore.contracts import Case
from micore.errors import AccessDenied, UsageError
from micore.runtime import Random
from micore.testing import Trial
from micore.threat import Access, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("mc-gra")


def test_independence_is_the_trace_of_centred_kernels() -> None:
    one, two = Random(0).normal((7, 3)), Random(1).normal((7, 4))
    centre = torch.eye(7) - 1 / 7
    trace = (centre @ one @ one.T @ centre @ two @ two.T).trace()
    torch.testing.assert_close(MEASURES["hsic"](one, two), -trace / 36)


def test_alignment_is_blind_to_turning_and_scale() -> None:
    values = Random(0).normal((9, 4))
    turned = 3 * values @ torch.linalg.qr(Random(1).normal((4, 4)))[0] + 2
    assert float(MEASURES["cka"](values, turned)) == pytest.approx(0, abs=1e-5)
    assert float(MEASURES["cka"](values, Random(2).normal((9, 4)))) > 0.1


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_equal_things_are_least_unlike(name: str) -> None:
    values = Random(0).uniform((9, 5))
    assert MEASURES[name](values, values) < MEASURES[name](values, Random(1).uniform((9, 5)))


def test_similarities_have_no_diagonal() -> None:
    values = Random(0).normal((6, 3))
    expected = torch.tensor(cosine_similarity(values)).clamp(min=0).fill_diagonal_(0)
    torch.testing.assert_close(SIMILARITIES["cosine"](values), expected)
    assert not SIMILARITIES["sigmoid"](values).diagonal().any()


def test_what_is_decided_costs_nothing() -> None:
    assert float(undecided(torch.tensor([0.0, 1.0]))) < 0.01
    assert float(undecided(torch.tensor([0.4]))) == pytest.approx(0.5288, abs=1e-3)


def test_gradients_are_those_of_the_plain_formulas() -> None:
    shares = torch.tensor([0.0, 0.3, 0.5, 0.99995, 0.9], dtype=torch.float64, requires_grad=True)
    p = shares.clamp(1e-4, 1 - 1e-4)
    plain = torch.autograd.grad(-(p * p.log2()).mean(), shares)
    torch.testing.assert_close(torch.autograd.grad(undecided(shares), shares), plain)
    values, weights = Random(0).normal((6, 3)).requires_grad_(True), Random(1).normal((6, 6))
    hollow = 1 - torch.eye(6)
    unit = torch.nn.functional.normalize(values, dim=1)
    for name, matrix in (("cosine", (unit @ unit.T).relu()), ("sigmoid", (values @ values.T).relu().sigmoid())):
        expected = torch.autograd.grad((matrix * hollow * weights).sum(), values, retain_graph=True)
        found = torch.autograd.grad((SIMILARITIES[name](values) * weights).sum(), values)
        torch.testing.assert_close(found, expected)


def test_the_search_gives_more_than_the_sum_of_what_is_known(toy: Trial) -> None:
    """The one thing that a sum of similarities cannot do by itself."""
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    searched, summed = toy.recovered(toy.run(toy.attack(steps=60))[1]), toy.recovered(toy.run(toy.attack(steps=0))[1])
    assert searched > summed + 0.04
    assert (
        searched > max(toy.recovered(list(floor)) for name, floor in floors.items() if name != "degree-product") + 0.1
    )


def test_hidden_features_and_answers_are_what_it_reads(toy: Trial) -> None:
    blind = toy.recovered(toy.run(toy.attack(embeddings=False, answers=False))[1])
    assert toy.recovered(toy.run()[1]) > blind + 0.04


def test_it_asks_once_about_what_is_known_and_then_walks(toy: Trial) -> None:
    target, _ = toy.run(toy.attack(steps=7))
    assert target.ledger.total == Spending(queries=60 * (2 + 7 + 1), gradients=60 * 7)
    target, _ = toy.run(toy.attack(steps=7, answers=False))
    assert target.ledger.total == Spending(queries=60 * (1 + 7 + 1), gradients=60 * 7)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_a_budget_leaves_what_was_found(toy: Trial, passes: int) -> None:
    target, (item,) = toy.run(budget=60 * passes)
    assert target.ledger.total.queries == 60 * passes
    assert not item.complete
    assert toy.recovered([item]) > 0.2


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    some = replace(known_of(toy.cases[0]), pairs=torch.tensor([[0], [1]]))
    case = Case(id="graph-0", goal="structure", evidence=some)
    with pytest.raises(UsageError, match="holds all pairs"):
        list(toy.attack().run(toy.target(), [case], None, toy.runtime))
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.SCORES), toy.cases, None, toy.runtime))
