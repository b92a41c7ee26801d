"""C2F-MI on the planted problem: it recovers, spends what it said, keeps what a budget leaves, lives on top answers."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mi_attack_c2f_mi.attack import CoarseToFine
from mi_attack_c2f_mi.config import CoarseToFineConfig
from micore.configs import preset_config
from micore.contracts import Attack, Defense, HasForecast, HasGenerator, HasPrior, NoConfig, Reconstruction
from micore.errors import AccessDenied, DataError
from micore.runs.subjects import sample_prior
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Ledger, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("c2f-mi")


@pytest.fixture(scope="module")
def found(toy: Trial) -> list[Reconstruction]:
    return toy.run()[1]


def recovered_by_prior(toy: Trial, found: list[Reconstruction]) -> float:
    attack = toy.attack()
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    return toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))


def test_it_recovers_more_than_its_prior_shows(toy: Trial, found: list[Reconstruction]) -> None:
    floor = recovered_by_prior(toy, found)
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.15
    assert all(item.complete for item in found)


def test_the_coarse_search_alone_asks_little_and_gives_something(toy: Trial, found: list[Reconstruction]) -> None:
    """With no step by F, the same codes are worse: what F learned from the target's answers on public images helps."""
    alone = {"generations": 0, "population": 5, "kept_latents": 5, "restarts": 8}
    target, coarse = toy.run(toy.attack(**alone, coarse_steps=30))
    _, random = toy.run(toy.attack(**alone, coarse_steps=0))
    assert target.ledger.cases == {case.id: Spending(queries=8 * 8) for case in toy.cases}
    assert toy.recovered(coarse) > recovered_by_prior(toy, found) + 0.1
    assert toy.recovered(coarse) > toy.recovered(random)


def test_it_spends_what_it_forecast(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, _ = toy.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert prepared_on.ledger.total == forecast.preparation
    assert target.ledger.used_access == Access.SCORES
    assert forecast.per_case.queries == 2 * (8 + 11 + 12 * 16)


def test_a_class_that_is_sure_enough_asks_no_more(toy: Trial, found: list[Reconstruction]) -> None:
    attack = toy.attack(enough=0.8)
    target, earlier = toy.run(attack)
    assert isinstance(attack, HasForecast)
    whole = attack.forecast(4, 0).per_case.queries
    spent = [target.ledger.cases[case.id].queries for case in toy.cases]
    assert min(spent) < whole
    for item, queries in zip(earlier, spent, strict=True):
        unsure = int((item.scores < 0.8 - 1e-4).sum())  # populations that went through all generations
        assert unsure * whole / len(item.scores) <= queries


def test_the_doubt_never_rises_and_the_score_is_the_targets(toy: Trial, found: list[Reconstruction]) -> None:
    target = toy.target()
    for item in found:
        history = item.history["doubt"]
        assert len(history) == 13
        assert history == sorted(history, reverse=True)
        answers = target.scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, answers, rtol=1e-4, atol=1e-5)


def test_samples_belong_to_their_latents_and_come_best_first(toy: Trial, found: list[Reconstruction]) -> None:
    for item in found:
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert toy.setting.problem(item.samples) is None
        assert item.latents is not None
        assert len(item.latents) == len(item.samples) == 2


@pytest.mark.parametrize("budget", [4, 40, 400])
def test_a_budget_leaves_what_was_found(toy: Trial, budget: int) -> None:
    """The budget ends in the coarse search, when the population is filled up, and in the evolution."""
    target, found = toy.run(budget=budget)
    assert budget - toy.runtime.tile < target.ledger.total.queries <= budget
    asked = {name for name, spending in target.ledger.cases.items() if spending.queries}
    assert {item.case.id for item in found} == asked
    assert not all(item.complete for item in found) or not found
    assert all(toy.setting.problem(item.samples) is None for item in found)


class Top(Defense):
    """An interface that answers with the k best classes alone, and their scores to one digit."""

    def __init__(self, k: int) -> None:
        super().__init__(NoConfig())
        self.k = k

    def adapt_output(self, scores: Tensor, inputs: Tensor) -> Tensor:
        best = scores.topk(self.k)
        return torch.zeros_like(scores).scatter(1, best.indices, (10 * best.values).round() / 10)


@pytest.mark.parametrize("k", [1, 2])
def test_it_works_with_top_answers_that_are_rounded(toy: Trial, k: int) -> None:
    target = Target(
        toy.lab.module(toy.setting), access=Access.SCORES, adapter=toy.modality.adapter(toy.dataset.input),
        input_spec=toy.dataset.input, classes=toy.dataset.classes, ledger=Ledger(), runtime=toy.runtime,
        output_defenses=[Top(k)],
    )  # fmt: skip
    attack = toy.attack()
    found = list(attack.run(target, toy.cases, toy.prepare(attack, target), toy.runtime))
    assert all(item.scores.isfinite().all() for item in found)
    assert toy.recovered(found) > recovered_by_prior(toy, found) + 0.1


def test_earlier_stands_are_what_a_shorter_search_finds(toy: Trial, found: list[Reconstruction]) -> None:
    """The coarse search and the mixtures, then 1, 2, 4 and 7 of 12 generations; two populations of 16."""
    start = toy.run(toy.attack(generations=0))[1]
    for item, first in zip(found, start, strict=True):
        begun = 2 * (8 + 11)
        assert [stand.queries for stand in item.snapshots] == [begun + 2 * 16 * done for done in (0, 1, 2, 4, 7)]
        assert torch.equal(item.snapshots[0].samples, first.samples)


def test_a_label_only_target_refuses(toy: Trial) -> None:
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.LABEL), toy.cases, toy.prepared, toy.runtime))


def test_what_is_missing_is_said(toy: Trial) -> None:
    attack = toy.attack()
    with pytest.raises(DataError, match="c2f-mi needs public images"):
        attack.prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="c2f-mi was not prepared"):
        list(attack.run(toy.target(), toy.cases, None, toy.runtime))
    with pytest.raises(ValidationError, match="kept_latents=10, latents=4, population=32"):
        CoarseToFineConfig(latents=4)


def test_it_offers_a_prior_a_forecast_and_a_generator(toy: Trial) -> None:
    for contract in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(toy.attack(), contract)


def test_the_published_values_are_those_of_the_authors() -> None:
    config = preset_config(CoarseToFine, "paper", {}, "c2f-mi")
    assert isinstance(config, CoarseToFineConfig)
    assert (config.kept_scores, config.hidden, config.dropout) == (1, 4096, 0.25)
    assert (config.inverse_epochs, config.inverse_batch_size, config.inverse_learning_rate) == (20, 128, 1e-3)
    assert (config.latents, config.coarse_steps, config.coarse_learning_rate, config.kept_latents) == (16, 20, 0.02, 10)
    assert (config.population, config.generations, config.pull, config.difference) == (32, 500, 0.02, 0.1)
    assert (config.pairs, config.fade_last, config.fade_over, config.mix, config.enough) == (4, 30, 50, 0.5, None)
