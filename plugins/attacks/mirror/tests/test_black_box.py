"""MIRROR's genetic search: its maths, and on the planted problem what it recovers, spends and keeps."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mi_attack_mirror.black_box import MirrorBlackBox, MirrorBlackBoxConfig
from mi_attack_mirror.genetic import (
    negative_log_odds,
    negative_log_probability,
    point_space,
    published_share,
    start_populations,
)
from mi_image.bank import CandidateBank
from micore.configs import preset_config
from micore.contracts import Attack, Case, Defense, HasForecast, HasGenerator, HasPrior, NoConfig, Reconstruction
from micore.errors import AccessDenied, DataError
from micore.kit.evolution import crossover, likelihood_share
from micore.kit.projections import from_p_space, to_p_space
from micore.runs.subjects import sample_prior
from micore.runtime import Random
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Ledger, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("mirror-bb")


def ground(trial: Trial, attack: Attack | None = None) -> CandidateBank:
    attack = attack or trial.attack()
    assert isinstance(attack, MirrorBlackBox)
    assert trial.prepared is not None
    return attack.prior(trial.prepared, trial.runtime).bank


def spent(trial: Trial, target: Target) -> list[int]:
    """What each class cost, 0 for one that the candidates had told enough of."""
    return [target.ledger.cases.get(case.id, Spending()).queries for case in trial.cases]


def best_scores(found: list[Reconstruction]) -> list[float]:
    return [float(item.scores[0]) for item in found]


# maths ------------------------------------------------------------------------------------------------------


def test_the_published_share_prefers_the_worse_parent_and_the_corrected_one_the_better() -> None:
    """The example of the defect: log p of -0.01 and -5."""
    better, worse = torch.tensor(0.01), torch.tensor(5.0)
    assert published_share(better, worse).item() == pytest.approx(0.01 / 5.01, rel=1e-4)
    expected = math.exp(-0.01) / (math.exp(-0.01) + math.exp(-5))
    assert likelihood_share(better, worse).item() == pytest.approx(expected, rel=1e-5)


def test_two_certain_parents_give_no_nan() -> None:
    nothing = torch.zeros(1, 4)
    assert published_share(nothing, nothing).tolist() == [[0.0] * 4]  # the authors' code: the second parent's genes
    assert likelihood_share(nothing, nothing).tolist() == [[0.5] * 4]
    ones = torch.ones(1, 4, 3)
    assert crossover(ones, 0 * ones, published_share(nothing, nothing), 0 * ones).eq(0).all()


def test_fitness_equals_its_formula_and_is_finite_for_an_answer_of_zero() -> None:
    answers, labels = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.75, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 0, 0])
    least = math.log(1e-30)
    assert negative_log_probability(answers, labels).tolist() == pytest.approx([-math.log(0.7), math.log(4), -least])
    expected = [math.log(0.3 / 0.7), math.log(3), -least]
    assert negative_log_odds(answers, labels).tolist() == pytest.approx(expected, rel=1e-5)


def test_odds_tell_apart_what_is_certain_to_the_last_digit() -> None:
    """Logits (20, 0) and (30, 0): the probability of both is 1 in float32."""
    answers = torch.tensor([[20.0, 0.0], [30.0, 0.0]]).softmax(dim=1)
    labels = torch.tensor([0, 0])
    assert negative_log_probability(answers, labels).tolist() == [0.0, 0.0]
    assert negative_log_odds(answers, labels).tolist() == pytest.approx([-20, -30], rel=1e-5)


def test_odds_of_an_answer_of_one_class_come_from_its_own_score() -> None:
    answers = torch.tensor([[0.8, 0.0], [0.0, 0.6], [1.0, 0.0]])
    losses = negative_log_odds(answers, torch.tensor([0, 0, 0]))
    assert losses[0].item() == pytest.approx(-math.log(4), rel=1e-5)
    assert losses[2] < losses[0] < losses[1]
    assert losses.isfinite().all()


def bank() -> CandidateBank:
    styles = Random(0).normal((40, 5))
    styles = torch.where(styles < 0, 0.2 * styles, styles)
    return CandidateBank(styles=styles, scores=Random(1).uniform((40, 3)))


def test_the_box_and_the_spread_are_those_of_the_samples_in_p_space() -> None:
    candidates = bank()
    space = point_space(candidates, 1.5)
    points = torch.where(candidates.styles < 0, 5 * candidates.styles.double(), candidates.styles.double())
    mean, spread = points.mean(dim=0), points.std(dim=0)
    torch.testing.assert_close(space.spread.double(), spread, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(space.box.low.double(), mean - 1.5 * spread, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(space.box.high.double(), mean + 1.5 * spread, rtol=1e-4, atol=1e-5)


def test_populations_are_dealt_from_the_best_candidates_with_their_scores() -> None:
    candidates, chosen = bank(), [Case(id=f"c{label}", goal="class", label=label) for label in (2, 0)]
    points, losses = start_populations(candidates, chosen, 3, 4, negative_log_probability)
    assert points.shape == (2, 3, 4, 5)
    for row, label in enumerate((2, 0)):
        order = candidates.scores[:, label].argsort(descending=True)[:12]
        for restart in range(3):
            mine = order[restart::3]
            torch.testing.assert_close(from_p_space(points[row, restart]), candidates.styles[mine])
            torch.testing.assert_close(losses[row, restart], -candidates.scores[mine, label].log())


# on the planted problem -------------------------------------------------------------------------------------


def test_it_recovers_more_than_its_prior_and_its_candidates_show(toy: Trial) -> None:
    attack = toy.attack()
    _, found = toy.run(attack)
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    floor = toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))
    _, candidates = toy.run(toy.attack(generations=0))
    assert abs(floor) < 0.15
    assert toy.recovered(found) > toy.recovered(candidates) + 0.05 > floor + 0.1
    assert all(item.complete for item in found)


def test_it_spends_what_it_forecast(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, _ = toy.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert prepared_on.ledger.total == forecast.preparation
    assert target.ledger.used_access == Access.SCORES


def test_earlier_stands_are_what_a_shorter_search_finds(toy: Trial) -> None:
    """Six stands of 12 generations; the first is the best candidate, before the class itself has cost anything."""
    found, candidates = toy.run()[1], toy.run(toy.attack(generations=0))[1]
    per_generation = 3 * 15
    shorter = toy.run(toy.attack(generations=2))[1]
    for item, start, short in zip(found, candidates, shorter, strict=True):
        queries = [stand.queries for stand in item.snapshots]
        assert queries == [0, per_generation, 2 * per_generation, 4 * per_generation, 7 * per_generation]
        assert torch.equal(item.snapshots[0].samples, start.samples)
        torch.testing.assert_close(item.snapshots[2].samples, short.samples)


def test_odds_as_fitness_recover_and_can_end_early(toy: Trial) -> None:
    target, found = toy.run(toy.attack(fitness="odds", enough=0.9))
    whole = toy.attack().forecast(4, 0).per_case.queries  # type: ignore[attr-defined]
    assert toy.recovered(found) > 0.2
    assert_only_the_unsure_ask_on(found, spent(toy, target), whole)
    for item in found:
        answers = target.scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, answers, rtol=1e-3, atol=1e-4)


def test_a_class_that_is_sure_enough_asks_no_more(toy: Trial) -> None:
    attack = toy.attack(enough=0.9)
    target, found = toy.run(attack)
    whole = toy.attack().forecast(4, 0).per_case.queries  # type: ignore[attr-defined]
    costs = spent(toy, target)
    assert_only_the_unsure_ask_on(found, costs, whole)
    assert len(set(costs)) > 1
    assert min(costs) < whole / 2


def assert_only_the_unsure_ask_on(found: list[Reconstruction], costs: list[int], whole: int) -> None:
    """Each population that is not sure went through all generations, and some class ended before."""
    for item, queries in zip(found, costs, strict=True):
        unsure = int((item.scores < 0.9 - 1e-4).sum())
        assert unsure * whole / len(item.scores) <= queries <= whole
    assert min(costs) < whole


def test_the_surprise_never_rises_and_the_score_is_the_targets(toy: Trial) -> None:
    target, found = toy.run()
    for item in found:
        history = item.history["loss"]
        assert len(history) == 13
        assert history == sorted(history, reverse=True)
        answers = target.scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, answers, rtol=1e-4, atol=1e-5)


def test_samples_belong_to_their_latents_and_come_best_first(toy: Trial) -> None:
    for item in toy.run()[1]:
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert toy.setting.problem(item.samples) is None
        assert item.latents is not None
        assert len(item.latents) == len(item.samples) == 3


def test_what_is_bred_lies_in_the_box_or_is_a_candidate(toy: Trial) -> None:
    space = point_space(ground(toy), 0.5)
    attack = toy.attack(width=0.5)
    codes = torch.cat([item.latents for item in toy.run(attack)[1] if item.latents is not None])
    points = to_p_space(codes)
    inside = ((points >= space.box.low - 1e-4) & (points <= space.box.high + 1e-4)).all(dim=1)
    drawn = (codes[:, None] - ground(toy).styles).abs().amax(dim=2).amin(dim=1) < 1e-5
    assert (inside | drawn).all()
    assert inside.any()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_budget_leaves_what_was_found(toy: Trial, share: float) -> None:
    attack = toy.attack()
    assert isinstance(attack, HasForecast)
    budget = max(1, int(share * attack.forecast(4, 0).per_case.queries * 4))
    target, found = toy.run(attack, budget=budget)
    assert budget - toy.runtime.tile < target.ledger.total.queries <= budget
    assert len(found) == len(toy.cases)  # the bank has told something of every class
    assert not any(item.complete for item in found)
    assert all(toy.setting.problem(item.samples) is None for item in found)
    candidates = best_scores(toy.run(toy.attack(generations=0))[1])
    assert all(ours >= start for ours, start in zip(best_scores(found), candidates, strict=True))


class TopOne(Defense):
    """An interface that answers with the best class alone, and its score to one digit."""

    def adapt_output(self, scores: Tensor, inputs: Tensor) -> Tensor:
        best = scores.max(dim=1, keepdim=True)
        return torch.zeros_like(scores).scatter(1, best.indices, (10 * best.values).round() / 10)


def test_it_works_with_top_answers_that_are_rounded(toy: Trial) -> None:
    target = Target(
        toy.lab.module(toy.setting), access=Access.SCORES, adapter=toy.modality.adapter(toy.dataset.input),
        input_spec=toy.dataset.input, classes=toy.dataset.classes, ledger=Ledger(), runtime=toy.runtime,
        output_defenses=[TopOne(NoConfig())],
    )  # fmt: skip
    attack = toy.attack()
    prepared = toy.prepare(attack, target)
    found = list(attack.run(target, toy.cases, prepared, toy.runtime))
    assert all(item.scores.isfinite().all() for item in found)
    assert toy.recovered(found) > 0.2


def test_a_label_only_target_refuses(toy: Trial) -> None:
    with pytest.raises(AccessDenied):
        toy.prepare(toy.attack(), toy.target(access=Access.LABEL))
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.LABEL), toy.cases, toy.prepared, toy.runtime))


def test_what_is_missing_is_said(toy: Trial) -> None:
    attack = toy.attack()
    with pytest.raises(DataError, match="mirror-bb needs public images"):
        attack.prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="mirror-bb was not prepared"):
        list(attack.run(toy.target(), toy.cases, None, toy.runtime))
    with pytest.raises(ValidationError, match="restarts=2 x population=8 of a bank of 10"):
        MirrorBlackBoxConfig(bank=10, population=8, restarts=2)


def test_it_offers_a_prior_a_forecast_and_a_generator(toy: Trial) -> None:
    for contract in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(toy.attack(), contract)


def test_the_published_values_are_those_of_the_authors() -> None:
    config = preset_config(MirrorBlackBox, "paper", {}, "mirror-bb")
    assert isinstance(config, MirrorBlackBoxConfig)
    assert (config.bank, config.psi, config.cutoff, config.width) == (100_000, 0.7, 8, 1.0)
    assert (config.population, config.generations, config.restarts, config.enough) == (1000, 100, 1, 0.95)
    assert (config.mutation_rate, config.mutation_size, config.fitness) == (0.1, 0.1, "probability")
