"""The attack on the planted problem: secrets that stand sixteen times in the corpus of a language model."""

from __future__ import annotations

import pytest
import torch

from mi_attack_lm_extraction.attack import QUERIES, TrainingTextExtraction
from mi_attack_lm_extraction.rankings import RANKINGS
from mi_text.toy import SECRETS
from micore.configs import preset_config
from micore.contracts import Attack, HasControl, HasForecast
from micore.errors import BudgetExceeded, DataError, MiError, UsageError
from micore.testing import Trial
from micore.threat import Access


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("lm-extraction")


@pytest.fixture(scope="module")
def ranked(toy: Trial) -> Trial:
    trial = Trial("lm-extraction", medium_width=48, medium_layers=1)
    trial.lab = toy.lab  # the same target, trained once
    return trial


@pytest.fixture(scope="module")
def prefixes(toy: Trial) -> Trial:
    trial = Trial("lm-extraction", evidence="prefix", reference_steps=20)
    trial.lab = toy.lab
    return trial


def control_of(trial: Trial, attack: Attack) -> float:
    assert isinstance(attack, HasControl)
    return trial.recovered(list(attack.control(trial.cases, trial.prepared, trial.runtime)))


def test_it_finds_the_secrets_and_a_model_that_never_saw_them_does_not(toy: Trial) -> None:
    attack = toy.attack()
    _, found = toy.run(attack)
    assert toy.recovered(found) > 0.9
    assert control_of(toy, attack) == 0


@pytest.mark.parametrize("ranking", [name for name in RANKINGS if name != "lowercase"])  # the toy's texts are
def test_every_ranking_puts_secrets_in_front(ranked: Trial, ranking: str) -> None:
    _, (item,) = ranked.run(ranked.attack(ranking=ranking))
    assert ranked.recovered([item]) > 0.5
    assert item.latents is not None
    assert item.latents.shape == (len(item.samples), len(RANKINGS))
    torch.testing.assert_close(item.scores, item.latents[:, RANKINGS.index(ranking)])


@pytest.mark.parametrize("sampler", ["top-k", "decay", "prompted"])
def test_every_sampler_alone_works(toy: Trial, sampler: str) -> None:
    _, (item,) = toy.run(toy.attack(samplers=[sampler], keep=100))
    assert item.history["drawn"] == [64.0]
    assert item.history["kept"] == [float(len(item.samples))]
    if sampler != "prompted":  # public texts begin otherwise
        assert toy.recovered([item]) > 0


def test_all_secrets_are_among_what_is_kept(toy: Trial) -> None:
    _, (item,) = toy.run(toy.attack(keep=1000))
    assert all(any(secret in text for text in item.samples) for secret in SECRETS)
    assert len(set(item.samples)) == len(item.samples)


def test_it_spends_at_most_what_it_forecast(toy: Trial, prefixes: Trial) -> None:
    for trial in (toy, prefixes):
        attack, (prepared_on, _) = trial.attack(), trial.preparation
        assert isinstance(attack, HasForecast)
        forecast = attack.forecast(1, 64)
        target, _ = trial.run(attack)
        assert prepared_on.ledger.total == forecast.preparation
        assert set(target.ledger.cases) == {case.id for case in trial.cases}
        assert all(0 < spent.queries <= forecast.per_case.queries for spent in target.ledger.cases.values())
        assert target.ledger.shared.queries == 0
        assert target.ledger.used_access == Access.SCORES


def test_a_budget_makes_fewer_texts(toy: Trial) -> None:
    target, (item,) = toy.run(budget=QUERIES * 3 * 10 + 1)
    assert target.ledger.total.queries <= QUERIES * 3 * 10
    assert item.history["drawn"] == [30.0]
    assert not item.complete
    target, found = toy.run(budget=QUERIES * 3 - 1)
    assert (target.ledger.total.queries, found) == (0, [])
    with pytest.raises(BudgetExceeded, match="a text of each sampler"):
        list(toy.attack().run(toy.target(budget=1), toy.cases, toy.prepared, toy.runtime))


# beginnings -----------------------------------------------------------------------------------------------


def test_beginnings_are_continued_to_the_secrets(prefixes: Trial) -> None:
    attack = prefixes.attack(keep=1, continuations=8)
    _, found = prefixes.run(attack)
    assert prefixes.recovered(found) == 1
    assert control_of(prefixes, attack) < 0.4
    for item in found:
        assert all(text.startswith(item.case.evidence.before) for text in item.samples)


def test_the_most_likely_continuation_alone_is_enough_here(prefixes: Trial) -> None:
    target, found = prefixes.run(prefixes.attack(continuations=0))
    assert prefixes.recovered(found) == 1
    assert all(len(item.samples) == 1 for item in found)
    assert target.ledger.total.queries == 3 * len(found)


def test_a_budget_that_ends_among_beginnings_leaves_those_before(prefixes: Trial) -> None:
    one = prefixes.run(prefixes.attack(continuations=0), budget=3)[1]
    assert [item.case.id for item in one] == [prefixes.cases[0].id]


# what does not fit ----------------------------------------------------------------------------------------


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    with pytest.raises(UsageError, match="public texts"):
        toy.attack().prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(toy.attack().run(toy.target(), toy.cases, None, toy.runtime))
    with pytest.raises(UsageError, match="holds NoneType"):
        list(toy.attack(evidence="prefix").run(toy.target(), toy.cases, toy.prepared, toy.runtime))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranking": "medium"}, "medium_width"),
        ({"prompt_words": [3, 2]}, "prompt_words"),
        ({"samplers": []}, "samplers"),
    ],
)
def test_settings_that_contradict_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(MiError, match=message):
        preset_config(TrainingTextExtraction, "smoke", options, "lm-extraction")
