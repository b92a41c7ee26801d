"""A surrogate, starts from it, and CMA-ES on the target: each part, and what a run costs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import cma
import numpy as np
import pytest
import torch
from torch import Tensor

from mi_attack_smile.attack import SurrogateGuided
from mi_attack_smile.refinement import Refinement, surprise
from mi_attack_smile.surrogate import balanced_rows
from mi_image.students import restore_students
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior
from micore.errors import DataError, MiError
from micore.kit.projections import Box, from_p_space, to_p_space
from micore.kit.search import Found, Rows, RowStatus
from micore.runs.subjects import sample_prior
from micore.runtime import Random, Runtime
from micore.testing import Trial
from micore.threat import Access, Budget, Ledger, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=4)


def attack(preset: str = "smoke", **options: object) -> SurrogateGuided:
    return SurrogateGuided(preset_config(SurrogateGuided, preset, options, "smile"))


# on the planted problem -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("smile", gan_iterations=150, bank=256, steps=20)


def test_it_recovers_more_than_its_prior_shows(toy: Trial) -> None:
    _, found = toy.run()
    attack = toy.attack()
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    floor = toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.2


def test_it_spends_what_it_forecast(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, found = toy.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(4, 128)
    assert prepared_on.ledger.total == forecast.preparation == Spending(queries=256)
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert forecast.per_case == Spending(queries=2 * (1 + 8 * 8))
    assert target.ledger.used_access == Access.SCORES
    assert all(item.complete for item in found)


def test_reconstructions_are_the_best_that_the_target_saw(toy: Trial) -> None:
    _, found = toy.run()
    attack = toy.attack()
    assert isinstance(attack, HasGenerator)
    assert toy.prepared is not None
    generator = attack.generator(toy.prepared, toy.runtime)
    for item in found:
        assert item.latents is not None
        torch.testing.assert_close(generator(item.latents), item.samples, rtol=0, atol=1e-4)
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
        losses = item.history["cross-entropy"]
        assert losses == sorted(losses, reverse=True)


def test_the_target_is_surer_after_the_refinement(toy: Trial) -> None:
    def sure(generations: int) -> float:
        _, found = toy.run(toy.attack(generations=generations))
        return float(torch.cat([item.scores for item in found]).log().mean())

    assert sure(8) > sure(0)


def test_the_surrogates_answer_like_the_target(toy: Trial) -> None:
    assert toy.prepared is not None
    (surrogate,) = restore_students(toy.prepared.state["surrogates"], toy.runtime)
    public = toy.dataset.split("public")
    images = public.take(range(len(public)))
    agreement = surrogate(images).argmax(dim=1) == toy.target().scores(images).argmax(dim=1)
    assert agreement.float().mean() > 0.6


@pytest.mark.parametrize("budget", [5, 60, 300])
def test_a_budget_that_ends_leaves_the_best_so_far(toy: Trial, budget: int) -> None:
    target, found = toy.run(budget=budget)
    assert target.ledger.total.queries <= budget
    assert not any(item.complete for item in found)
    assert bool(found) == (budget > 5)
    for item in found:
        assert toy.setting.problem(item.samples) is None
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("preset", "classes", "each"), [("paper", 1, 2481), ("default", 5, 2468)])
def test_a_class_costs_less_than_2500_queries_in_all(preset: str, classes: int, each: int) -> None:
    forecast = attack(preset).forecast(classes, 1000)
    assert forecast.preparation.queries + classes * forecast.per_case.queries == classes * each


def test_earlier_stands_show_how_the_search_came_there(toy: Trial) -> None:
    _, found = toy.run()
    for item in found:
        spent = [stand.queries for stand in item.snapshots]
        assert spent[0] == 2  # both starts
        assert spent == sorted(set(spent))
        assert spent[-1] < 2 * (1 + 8 * 8)
        sure = [toy.target().scores(stand.samples)[:, item.case.label].log().mean() for stand in item.snapshots]
        assert all(later >= earlier - 1e-4 for earlier, later in pairwise(sure))


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    with pytest.raises(DataError, match="smile needs public images or a prior"):
        attack().prepare(toy.target(), None, CPU)
    with pytest.raises(DataError, match="smile was not prepared"):
        list(attack().run(toy.target(), toy.cases, None, CPU))
    with pytest.raises(MiError, match="cutoff"):
        attack(cutoff=2)
    with pytest.raises(MiError, match="restarts=100"):
        attack(restarts=100)


def test_it_is_an_attack_whose_prior_can_be_tuned() -> None:
    for protocol in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(attack(), protocol)


# the long tail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("balance", "rare"), [(1.0, 0.5), (0.0, 0.1), (0.5, 0.25)])
def test_rare_classes_are_drawn_more_often(balance: float, rare: float) -> None:
    answers = torch.tensor([[0.9, 0.1, 0.0]] * 90 + [[0.2, 0.8, 0.0]] * 10)
    rows = balanced_rows(answers, Random(0).uniform((20_000,)), balance)
    assert float((rows >= 90).double().mean()) == pytest.approx(rare, abs=0.02)
    assert set(rows.unique().tolist()) == set(range(100))


def test_balanced_rows_stay_within_the_samples() -> None:
    rows = balanced_rows(torch.eye(3), torch.tensor([0.0, 0.34, 0.999999]), 1.0)
    assert rows.tolist() == [0, 1, 2]


# the refinement -------------------------------------------------------------------------------------------

WIDE = Box(low=torch.full((3,), -5.0), high=torch.full((3,), 5.0))


def distance(styles: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
    return (styles - constants["goal"]).square().sum(dim=1)


def refined(
    starts: Tensor, seeds: list[int], *, box: Box = WIDE, generations: int = 20, ledger: Ledger | None = None,
    goal: float = 1.0,
) -> Found:  # fmt: skip
    rows = Rows(
        starts=starts, owners=[f"case-{seed}" for seed in seeds], constants={"goal": torch.full_like(starts, goal)}
    )
    ledger = ledger or Ledger()

    def score(styles: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
        ledger.charge(queries=len(styles))
        return distance(styles, constants)

    refinement = Refinement(
        score=score, generations=generations, population=6, step=0.5, box=box, spread=torch.ones(3)
    )  # fmt: skip
    return refinement.run(rows, [Random(seed) for seed in seeds], ledger, CPU)


def test_it_is_pycmas_strategy_with_the_rows_own_random_numbers() -> None:
    stream = Random(7)
    strategy = cma.CMAEvolutionStrategy(
        3 * [0.0], 0.5,
        {"popsize": 6, "randn": lambda *shape: stream.normal(shape).double().numpy(), "seed": float("nan"),
         "verbose": -9},
    )  # fmt: skip
    start = torch.tensor([0.5, -0.25, 0.0])
    best = float(distance(start[None], {"goal": torch.ones(3)}))
    for _ in range(5):
        points = strategy.ask()
        members = from_p_space(to_p_space(start) + torch.tensor(np.stack(points), dtype=torch.float32))
        losses = distance(WIDE.clamp(members), {"goal": torch.ones(3)})
        strategy.tell(points, losses.tolist())
        best = min(best, float(losses.min()))
    found = refined(start[None], [7], generations=5)
    assert float(found.losses[0]) == pytest.approx(best, rel=1e-5)
    assert found.history.shape == (1, 6)


def test_it_finds_the_best_code_and_does_not_leave_the_box() -> None:
    starts = torch.zeros(2, 3)
    assert (refined(starts, [1, 2], generations=60).values - 1).abs().max() < 0.1
    narrow = Box(low=torch.full((3,), -0.5), high=torch.full((3,), 0.5))
    found = refined(starts, [1, 2], box=narrow, generations=60)
    assert found.values.abs().max() <= 0.5
    assert (found.values - 0.5).abs().max() < 0.05


def test_a_row_is_refined_the_same_beside_others() -> None:
    starts = torch.zeros(3, 3)
    together, alone = refined(starts, [1, 2, 3]), refined(starts[:1], [2])
    assert torch.equal(together.values[1], alone.values[0])
    assert not torch.equal(together.values[0], together.values[1])


def test_it_spends_exactly_and_stops_at_the_budget() -> None:
    ledger = Ledger()
    assert refined(torch.zeros(2, 3), [1, 2], generations=4, ledger=ledger).complete
    assert {name: spent.queries for name, spent in ledger.cases.items()} == {"case-1": 25, "case-2": 25}
    short = Ledger(budget=Budget(queries=20))
    found = refined(torch.zeros(2, 3), [1, 2], generations=4, ledger=short)
    assert short.total.queries <= 20
    assert set(found.statuses) == {RowStatus.STOPPED}
    assert bool((found.losses <= 3.0).all())


def test_a_start_that_is_best_stays() -> None:
    found = refined(torch.ones(1, 3), [4], generations=3)
    assert float(found.losses[0]) == 0
    assert torch.equal(found.values, torch.ones(1, 3))


def test_answers_that_are_never_finite_fail_the_row() -> None:
    found = refined(torch.zeros(1, 3), [1], generations=2, goal=float("inf"))
    assert found.statuses == [RowStatus.FAILED]


def test_scores_of_zero_can_be_compared() -> None:
    losses = surprise(torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([0, 0]))
    assert losses.tolist() == pytest.approx([27.631021, 0.693147], rel=1e-5)
