"""BREP-MI on the planted problem, against a target that gives labels and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_attack_brep_mi.attack import BoundaryRepulsion
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior, Prepared, Reconstruction
from micore.errors import AccessDenied, BudgetExceeded, CaseFailed, DataError, MiError
from micore.runs.preparation import SpendingCheckpoints
from micore.runs.subjects import sample_prior
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Spending

ENDLESS = {"patience": 1000, "max_rejected": 1000, "rounds": 6}
"""No row ends early."""


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("brep-mi")


def brep(**options: object) -> BoundaryRepulsion:
    return BoundaryRepulsion(preset_config(BoundaryRepulsion, "smoke", options, "brep-mi"))


def test_it_recovers_from_labels_what_its_prior_does_not_show(toy: Trial) -> None:
    attack = brep()
    target, found = toy.run(attack)
    with pytest.raises(AccessDenied):
        target.scores(found[0].samples)
    assert target.access == target.ledger.used_access == Access.LABEL
    assert toy.prepared is not None
    floor = toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.15
    assert all(item.complete for item in found)


def test_it_ends_deeper_than_it_began(toy: Trial) -> None:
    longer = {"radius": 0.5, "points": 16, "rounds": 40, "patience": 12}
    _, begun = toy.run(brep(rounds=0))
    _, found = toy.run(brep(**longer))
    _, last = toy.run(brep(**longer, reported="last"))
    assert toy.recovered(found) > toy.recovered(begun) + 0.03
    assert toy.recovered(last) > toy.recovered(begun) + 0.03
    assert all(float(item.scores.max()) == 0 for item in begun)
    assert all(float(item.scores[0]) >= 0.5 for item in found)


def test_it_spends_what_it_forecast_when_nothing_ends_early(toy: Trial) -> None:
    attack = brep(**ENDLESS)
    target, _ = toy.run(attack)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert forecast.per_case == Spending(queries=2 * 6 * 9)
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert target.ledger.shared == Spending()


def test_the_starts_cost_every_class_together_at_most_the_forecast(toy: Trial) -> None:
    never = brep(restarts=400, initial_batch=30, initial_batches=3)  # no multiple of the tile
    target = toy.target()
    toy.prepare(never, target)
    assert target.ledger.shared == never.forecast(4, 128).preparation == Spending(queries=90)
    early, prepared = toy.preparation
    assert prepared is not None
    assert 0 < early.ledger.shared.queries < brep().forecast(4, 128).preparation.queries
    assert early.ledger.shared.queries == prepared.state["starts"]["drawn"]
    assert early.ledger.cases == {}


def test_a_row_that_ends_early_costs_less(toy: Trial) -> None:
    attack = brep(patience=2, rounds=50)
    target, _ = toy.run(attack)
    most = attack.forecast(4, 128).per_case.queries
    assert all(spent.queries < most for spent in target.ledger.cases.values())
    assert all(spent.queries % 9 == 0 for spent in target.ledger.cases.values())


@pytest.mark.parametrize("left", [1, 7, 8 * 9 * 3, 8 * 9 * 3 + 20])
def test_a_budget_stops_exactly_and_every_case_keeps_its_best(toy: Trial, left: int) -> None:
    """A round asks about 8 rows x 8 points and 8 proposals in tiles of 8."""
    target, found = toy.run(brep(**ENDLESS), budget=left)
    assert target.ledger.total.queries == left // 8 * 8
    assert [item.case.id for item in found] == [case.id for case in toy.cases]
    assert not any(item.complete for item in found)
    assert all(toy.setting.problem(item.samples) is None for item in found)


def test_a_budget_for_the_starts_is_kept_too(toy: Trial) -> None:
    target = toy.target(budget=20)
    with pytest.raises(BudgetExceeded):
        toy.prepare(brep(), target)
    assert target.ledger.total.queries == 16


def test_a_class_that_was_never_hit_fails_and_the_others_go_on(toy: Trial) -> None:
    assert toy.prepared is not None
    starts = {**toy.prepared.state["starts"], "counts": torch.tensor([2, 0, 2, 1])}
    prepared, found = Prepared(state={**toy.prepared.state, "starts": starts}), list[Reconstruction]()
    with pytest.raises(CaseFailed, match=r"none of \d+ random latents was labelled as it") as caught:
        found.extend(brep().run(toy.target(), toy.cases, prepared, toy.runtime))
    assert list(caught.value.reasons) == [toy.cases[1].id]
    assert "initial_batches" in (caught.value.hint or "")
    assert len(found) == 3
    assert all(len(item.samples) == 2 for item in found)  # also where one start stands for two
    with pytest.raises(CaseFailed):
        list(brep().run(toy.target(), toy.cases[1:2], prepared, toy.runtime))


class Killing(SpendingCheckpoints):
    """Saves every state and dies at one of them."""

    def __init__(self, path: Path, target: Target, last: int) -> None:
        super().__init__(path, target.ledger, interval_s=0.0)
        self.left = last

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_killed_preparation_goes_on_with_its_spending(toy: Trial, tmp_path: Path) -> None:
    attack, path = brep(restarts=400, initial_batch=16, initial_batches=6), tmp_path / "checkpoint.safetensors"
    public, whole = toy.dataset.split("public"), toy.target()
    expected = toy.prepare(attack, whole)
    killed, again = toy.target(), toy.target()
    with pytest.raises(KeyboardInterrupt):
        attack.prepare(killed, public, toy.runtime.with_checkpoints(Killing(path, killed, 60 + 1 + 3)))
    assert killed.ledger.total.queries == 3 * 16
    checkpoints = SpendingCheckpoints(path, again.ledger, interval_s=1e9)
    prepared = attack.prepare(again, public, toy.runtime.with_checkpoints(checkpoints))
    assert again.ledger.total == whole.ledger.total == Spending(queries=6 * 16)
    assert expected is not None
    assert torch.equal(prepared.state["starts"]["latents"], expected.state["starts"]["latents"])


def test_the_alternatives_give_something_else(toy: Trial) -> None:
    published = {item.case.id: item.samples for item in toy.run(brep())[1]}
    for options in ({"reported": "last"}, {"outward_only": False}, {"expand_share": 0.0}, {"box": 1.0}):
        found = toy.run(brep(**options))[1]
        assert any(not torch.equal(item.samples, published[item.case.id]) for item in found), options


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    target = toy.target()
    with pytest.raises(DataError, match="needs public images"):
        brep().prepare(target, None, toy.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(brep().run(target, toy.cases, None, toy.runtime))
    assert target.ledger.total.queries == 0
    with pytest.raises(MiError, match="expand_share"):
        brep(expand_share=1.0)


def test_it_is_an_attack_whose_prior_can_be_tuned() -> None:
    for protocol in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(brep(), protocol)
    paper = BoundaryRepulsion(preset_config(BoundaryRepulsion, "paper", {}, "brep-mi")).config
    assert (paper.points, paper.radius, paper.growth, paper.box, paper.patience) == (32, 2.0, 1.3, 1.5, 1000)
