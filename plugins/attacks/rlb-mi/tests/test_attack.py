"""RLB-MI as a run calls it: it inverts a target through its scores, at the cost it forecast."""

from __future__ import annotations

import pytest
import torch

from mi_attack_rlb_mi.attack import ReinforcedInversion
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior
from micore.errors import BudgetExceeded, CaseFailed, DataError, MiError
from micore.runs.subjects import sample_prior
from micore.runtime import Runtime
from micore.testing import Trial
from micore.threat import Access, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=16)


def attack(preset: str = "smoke", **options: object) -> ReinforcedInversion:
    return ReinforcedInversion(preset_config(ReinforcedInversion, preset, options, "rlb-mi"))


# on the planted problem -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("rlb-mi", restarts=2, episodes=320)


def test_it_recovers_what_its_prior_does_not_show(toy: Trial) -> None:
    _, found = toy.run(toy.attack(episodes=640))
    attack = toy.attack()
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    floor = toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.25


def test_it_spends_what_it_forecast_and_prepares_without_the_target(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, found = toy.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(4, 128)
    assert prepared_on.ledger.total == forecast.preparation == Spending()
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert forecast.per_case == Spending(queries=2 * (320 + 2 * 40))
    assert target.ledger.used_access == Access.SCORES
    assert all(item.complete for item in found)


def test_reconstructions_are_what_the_target_was_surest_of(toy: Trial) -> None:
    _, found = toy.run()
    attack = toy.attack()
    assert isinstance(attack, HasGenerator)
    assert toy.prepared is not None
    generator = attack.generator(toy.prepared, toy.runtime)
    for item in found:
        assert item.latents is not None
        assert item.latents.abs().max() <= 1
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(generator(item.latents), item.samples, rtol=0, atol=1e-4)


def test_a_case_alone_is_the_case_among_others(toy: Trial) -> None:
    _, together = toy.run()
    (alone,) = toy.attack().run(toy.target(), toy.cases[2:3], toy.prepared, toy.runtime)
    assert torch.equal(alone.samples, together[2].samples)
    assert torch.equal(alone.scores, together[2].scores)
    assert alone.history == together[2].history


@pytest.mark.parametrize(("budget", "n_found"), [(3, 0), (40, 3), (700, 4)], ids=["none", "some", "all"])
def test_a_budget_that_ends_leaves_the_best_so_far(toy: Trial, budget: int, n_found: int) -> None:
    target, found = toy.run(budget=budget)
    assert target.ledger.total.queries <= budget
    assert not any(item.complete for item in found)
    for item in found:
        assert toy.setting.problem(item.samples) is None
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
    assert len(found) == n_found


@pytest.mark.parametrize(
    ("options", "per_agent"),
    [
        ({"mix": 0.3}, 2 * 320 + 2 * 40),
        ({"tests": 0}, 320),
        ({"noise": "scalar"}, 320 + 2 * 40),
        ({"episode_length": 3}, 3 * 320 + 2 * 40),
        ({"memory": 100}, 320 + 2 * 40),
        ({"updates": 0}, 320 + 2 * 40),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_variants_spend_what_they_forecast(toy: Trial, options: dict[str, object], per_agent: int) -> None:
    variant = toy.attack(**options)
    target, found = toy.run(variant)
    assert isinstance(variant, HasForecast)
    assert variant.forecast(4, 128).per_case == Spending(queries=2 * per_agent)
    assert all(spent.queries == 2 * per_agent for spent in target.ledger.cases.values())
    assert len(found) == 4
    assert all(item.complete for item in found)


def test_an_agent_that_learns_earns_more_than_one_that_does_not(toy: Trial) -> None:
    def earned(updates: int) -> float:
        _, found = toy.run(toy.attack(updates=updates, episodes=640))
        return sum(item.history["reward"][-1] for item in found) / len(found)

    assert earned(2) > earned(0) + 30


def test_an_earlier_stand_is_what_its_budget_would_have_bought(toy: Trial) -> None:
    _, found = toy.run()
    for item in found:
        spent = [stand.queries for stand in item.snapshots]
        assert spent == sorted(set(spent))
        assert 0 < spent[0] < spent[-1] < 2 * (320 + 2 * 40)
        assert len(spent) >= 4
        assert all(toy.setting.problem(stand.samples) is None for stand in item.snapshots)
    stand = found[0].snapshots[2]
    _, stopped = toy.run(budget=stand.queries * len(toy.cases))
    for item, earlier in zip(found, stopped, strict=True):
        torch.testing.assert_close(item.snapshots[2].samples, earlier.samples, rtol=0, atol=1e-5)


def test_answers_that_are_no_numbers_are_never_kept(toy: Trial) -> None:
    target, calls = toy.target(), iter(range(10**6))
    inner = target.scores

    def flickering(samples: torch.Tensor) -> torch.Tensor:
        return inner(samples) if next(calls) % 3 else torch.full_like(inner(samples), torch.nan)

    target.scores = flickering  # type: ignore[method-assign]
    found = list(toy.attack().run(target, toy.cases, toy.prepared, toy.runtime))
    assert len(found) == 4
    for item in found:
        assert torch.isfinite(torch.tensor(item.history["reward"])).all()
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)


def test_a_target_that_never_gives_a_number_fails_the_cases(toy: Trial) -> None:
    target = toy.target()
    target.scores = lambda samples: torch.full((len(samples), 4), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(CaseFailed):
        list(toy.attack(episodes=16).run(target, toy.cases, toy.prepared, toy.runtime))


def test_a_budget_without_an_answer_is_said(toy: Trial) -> None:
    with pytest.raises(BudgetExceeded, match="the budget ended"):
        list(toy.attack().run(toy.target(budget=1), toy.cases, toy.prepared, toy.runtime))


def test_answers_of_the_top_class_alone_are_enough_to_run(toy: Trial) -> None:
    target = toy.target()
    inner = target.scores

    def top(samples: torch.Tensor) -> torch.Tensor:
        scores = inner(samples)
        return torch.where(scores == scores.amax(1, keepdim=True), scores, 0)

    target.scores = top  # type: ignore[method-assign]
    found = list(toy.attack().run(target, toy.cases, toy.prepared, toy.runtime))
    assert all(torch.isfinite(torch.tensor(item.history["reward"])).all() for item in found)


# configs and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [({"episodes": 10, "environments": 8}, "does not divide"), ({"memory": 4, "environments": 8}, "memory=4")],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(MiError, match=message):
        attack(**options)


def test_what_is_missing_is_said(toy: Trial) -> None:
    with pytest.raises(DataError, match="rlb-mi needs public images"):
        attack().prepare(toy.target(), None, CPU)
    with pytest.raises(DataError, match="rlb-mi was not prepared"):
        list(attack().run(toy.target(), toy.cases, None, CPU))


def test_the_paper_takes_one_gradient_step_per_episode() -> None:
    config = attack("paper").config
    assert config.rounds * config.updates == config.rounds * config.tests == config.episodes == 40_000


def test_it_is_an_attack_whose_prior_can_be_tuned() -> None:
    for protocol in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(attack(), protocol)
