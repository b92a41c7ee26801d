"""GraphMI: its maths, what it recovers on the planted graph, spends and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mi_graph.cases import known_of
from micore.contracts import Case
from micore.errors import AccessDenied, UsageError
from micore.testing import Trial
from micore.threat import Access, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("graphmi")


@pytest.mark.parametrize("decode", ["encoder", "edges"])
def test_classes_and_features_give_edges_away(toy: Trial, decode: str) -> None:
    _, (item,) = toy.run(toy.attack(decode=decode))
    assert toy.recovered([item]) > 0.4
    assert item.history["loss"][0] > item.history["loss"][15]


def test_it_gives_no_more_than_its_floors(toy: Trial) -> None:
    """What the spec says: the day that this fails, the attack has become better, and the spec is wrong."""
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.spec.below_floors
    assert toy.recovered(toy.run()[1]) < toy.recovered(list(floors["cosine-and-label"])) + 0.02


def test_draws_are_kept_by_their_loss_and_follow_the_seed(toy: Trial) -> None:
    attack = toy.attack(decode="sampled", draws=3)
    (one,), (again,) = toy.run(attack)[1], toy.run(attack)[1]
    assert one.samples == again.samples
    scores = one.samples.graphs[0].scores
    assert scores is not None
    assert set(scores.tolist()) == {0.0, 1.0}
    assert 0 < int(scores.sum()) <= known_of(toy.cases[0]).n_edges
    assert toy.recovered([one]) > 0


def test_a_share_of_the_classes_is_drawn(toy: Trial) -> None:
    few = toy.attack(known=0.2)
    (one,), (other,) = toy.run(few)[1], Trial("graphmi", seed=1).run(few)[1]
    assert one.samples != other.samples


def test_each_step_asks_about_all_nodes_both_ways(toy: Trial) -> None:
    target, _ = toy.run(toy.attack(steps=7))
    assert target.ledger.total == Spending(queries=60 * 8, gradients=60 * 7)  # one look more to decode
    assert target.ledger.used_access == Access.WHITE_BOX


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    target, (item,) = toy.run(budget=60 * 10)
    assert target.ledger.total.queries == 60 * 10
    assert not item.complete
    assert toy.recovered([item]) > 0


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    known = known_of(toy.cases[0])
    for changed, message in (
        (replace(known, labels=None), "needs the classes"),
        (replace(known, pairs=torch.tensor([[0], [1]])), "holds all pairs"),
    ):
        case = Case(id="graph-0", goal="structure", evidence=changed)
        with pytest.raises(UsageError, match=message):
            list(toy.attack().run(toy.target(), [case], None, toy.runtime))
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.SCORES), toy.cases, None, toy.runtime))
