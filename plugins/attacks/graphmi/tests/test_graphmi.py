"""GraphMI: its maths, what it recovers on the planted graph, spends and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mi_attack_graphmi.attack import projected, roughness
from mi_graph.cases import known_of
from mi_graph.graphs import symmetric
from micore.contracts import Case
from micore.errors import AccessDenied, UsageError
from micore.runtime import Random
from micore.testing import Trial
from micore.threat import Access, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("graphmi")


def relaxed(n: int, seed: int = 0) -> Tensor:
    return symmetric(Random(seed).uniform((n * (n - 1) // 2,)), n)


def test_roughness_is_the_trace_of_the_paper() -> None:
    edges, features = relaxed(9), Random(1).normal((9, 4))
    degrees = edges.sum(dim=1)
    roots = (degrees + 1e-3).rsqrt().diag()
    expected = (features.T @ roots @ (degrees.diag() - edges) @ roots @ features).trace()
    torch.testing.assert_close(roughness(edges, features @ features.T), expected)


def test_a_projection_is_the_nearest_within_the_budget() -> None:
    edges = 2 * relaxed(12) - 0.3
    found = projected(edges.fill_diagonal_(0), 20.0)
    assert float(found.sum()) == pytest.approx(20, abs=1e-3)
    assert bool(((found >= 0) & (found <= 1)).all())
    shift = (edges - found)[(found > 0) & (found < 1)]
    assert float(shift.max() - shift.min()) < 1e-5
    inside = relaxed(5)
    torch.testing.assert_close(projected(inside, 1e3), inside)


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
