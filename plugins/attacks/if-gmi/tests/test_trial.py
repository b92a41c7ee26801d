"""IF-GMI on the planted problem: it recovers, spends what it said, and keeps what a budget leaves."""

from __future__ import annotations

import pytest

from mi_attack_if_gmi.attack import IntermediateFeatures
from micore.configs import preset_config
from micore.contracts import HasForecast, HasPrior
from micore.errors import DataError
from micore.runs.subjects import sample_prior
from micore.testing import Trial


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("if-gmi")


def test_it_recovers_more_than_its_prior_shows(toy: Trial) -> None:
    attack = toy.attack()
    _, found = toy.run(attack)
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    controls = sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime)
    floor = toy.recovered(controls)
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.1
    assert all(item.complete for item in found)


def test_it_spends_what_it_forecast(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, _ = toy.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert prepared_on.ledger.total == forecast.preparation


def test_samples_belong_to_their_latents_and_come_best_first(toy: Trial) -> None:
    _, found = toy.run()
    for item in found:
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert toy.setting.problem(item.samples) is None
        assert item.latents is not None
        assert len(item.latents) == len(item.samples)


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    attack = toy.attack()
    assert isinstance(attack, HasForecast)
    whole = attack.forecast(len(toy.cases), 0).per_case.queries * len(toy.cases)
    target, found = toy.run(attack, budget=whole // 2)
    assert target.ledger.total.queries <= whole // 2
    assert found
    assert len(found) < len(toy.cases) or not all(item.complete for item in found)
    assert all(toy.setting.problem(item.samples) is None for item in found)


def test_more_steps_lower_the_loss(toy: Trial) -> None:
    _, found = toy.run()
    losses = [next(iter(item.history.values())) for item in found]
    assert all(history[-1] < history[0] for history in losses if len(history) > 1)


def test_what_is_missing_is_said(toy: Trial) -> None:
    attack = IntermediateFeatures(preset_config(IntermediateFeatures, "smoke", {}, "if-gmi"))
    with pytest.raises(DataError, match="public images"):
        attack.prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(attack.run(toy.target(), toy.cases, None, toy.runtime))
