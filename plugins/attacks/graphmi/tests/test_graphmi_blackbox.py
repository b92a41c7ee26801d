"""GraphMI without weights: estimated gradients and the agent, what they recover, spend and refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mi_attack_graphmi import blackbox
from mi_graph.cases import known_of
from micore.contracts import Case
from micore.errors import AccessDenied, UsageError
from micore.testing import Trial
from micore.threat import Access, Spending

NAMES = ("graphmi-bb", "graphmi-label")


@pytest.fixture(scope="module", params=NAMES)
def toy(request: pytest.FixtureRequest) -> Trial:
    return Trial(request.param)


def test_estimated_gradients_find_edges_that_features_do_not_tell(toy: Trial) -> None:
    """Edges alone, without the features' cosines: more than those have, as classes are known besides."""
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    asked = {"steps": 100, "directions": 50}
    _, (item,) = toy.run(toy.attack(decode="edges", **asked))
    losses = item.history["loss"]
    assert losses[-1] < 0.75 * losses[0]
    _, both = toy.run(toy.attack(**asked))
    assert toy.recovered(both) > toy.recovered(list(floors["feature-cosine"])) + 0.05


def test_it_gives_no_more_than_its_floors(toy: Trial) -> None:
    """What the spec says: the day that this fails, the attack has become better, and the spec is wrong."""
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.spec.below_floors
    found = toy.recovered(toy.run(toy.attack(steps=100, directions=50))[1])
    assert found < toy.recovered(list(floors["cosine-and-label"]))


def test_each_direction_asks_about_two_graphs(toy: Trial) -> None:
    target, _ = toy.run(toy.attack(steps=3, directions=5))
    assert target.ledger.total == Spending(queries=60 * 3 * 5 * 2, gradients=0)
    assert target.ledger.used_access == toy.spec.access
    few, _ = toy.run(toy.attack(steps=3, directions=5, known=0.5))
    assert few.ledger.total == Spending(queries=30 * 3 * 5 * 2, gradients=0)


def test_graphs_that_are_asked_about_in_parts_give_the_same(toy: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each graph brings its own copy of the features: ten of Cora's at once would be more than all else."""
    attack = toy.attack(steps=3, directions=5)
    at_once, (whole,) = toy.run(attack)
    monkeypatch.setattr(blackbox, "VALUES", 3 * known_of(toy.cases[0]).features.numel())
    in_parts, (same,) = toy.run(attack)
    one, two = (item.samples.graphs[0].scores for item in (whole, same))
    torch.testing.assert_close(one, two)
    assert at_once.ledger.total == in_parts.ledger.total


def test_an_agent_is_rewarded_for_answered_classes() -> None:
    toy = Trial("graphmi-bb")
    agent = toy.attack(method="reinforcement", episodes=2, decode="edges")
    target, (item,) = toy.run(agent)
    n_edges = known_of(toy.cases[0]).n_edges
    assert target.ledger.total == Spending(queries=60 * 2 * (n_edges + 1), gradients=0)
    scores = item.samples.graphs[0].scores
    assert scores is not None
    assert float(scores.sum()) == pytest.approx(n_edges)  # one graph, the better of two, each pair once
    (again,) = toy.run(agent)[1]
    assert item.samples == again.samples


@pytest.mark.parametrize("method", ["gradient", "reinforcement"])
def test_a_budget_leaves_what_was_found(toy: Trial, method: str) -> None:
    target, (item,) = toy.run(toy.attack(method=method), budget=60 * 20)
    assert target.ledger.total.queries <= 60 * 20
    assert not item.complete
    assert toy.recovered([item]) > 0.2  # by the features' cosines, at least


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    known = known_of(toy.cases[0])
    large = replace(known, features=torch.zeros(151, 2), labels=torch.zeros(151, dtype=torch.int64))
    for changed, options, message in (
        (replace(known, labels=None), {}, "needs the classes"),
        (replace(known, pairs=torch.tensor([[0], [1]])), {}, "holds all pairs"),
        (large, {"method": "reinforcement"}, "too many"),
    ):
        case = Case(id="graph-0", goal="structure", evidence=changed)
        with pytest.raises(UsageError, match=message):
            list(toy.attack(**options).run(toy.target(), [case], None, toy.runtime))


def test_scores_are_not_given_for_classes() -> None:
    toy = Trial("graphmi-bb")
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.LABEL), toy.cases, None, toy.runtime))
