"""Vec2Text on the planted problem: corrections bring texts nearer, and it spends what it said."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_attack_vec2text.corrector import Corrector, answers_to
from mi_text.inverting import Inverter, restore_pairs
from micore.contracts import HasBaselines, HasControl, HasForecast
from micore.errors import AccessDenied, DataError, UsageError
from micore.testing import Trial
from micore.threat import Access


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial("vec2text", corrector_steps=150)


def test_it_beats_its_control(trial: Trial) -> None:
    attack = trial.attack()
    assert isinstance(attack, HasControl)
    assert isinstance(attack, HasBaselines)
    _, found = trial.run()
    control = list(attack.control(trial.cases, trial.prepared, trial.runtime))
    assert trial.recovered(found) > trial.recovered(control) + 0.3
    assert [len(item.samples) for item in control] == [len(item.samples) for item in found]
    nearest = attack.baselines(trial.cases, trial.prepared, trial.runtime)["nearest-public"]
    assert {text for item in nearest for text in item.samples} <= set(trial.dataset.split("public").take(range(512)))


def test_rounds_bring_the_texts_nearer(trial: Trial) -> None:
    _, guessed = trial.run(trial.attack(rounds=0))
    _, found = trial.run()
    near = [sum(float(item.scores[0]) for item in items) / len(items) for items in (guessed, found)]
    assert near[1] > near[0] + 0.02
    for before, after in zip(guessed, found, strict=True):
        assert float(after.scores[0]) >= float(before.scores[0])
        assert after.history["cosine"][0] == before.history["cosine"][0]


def test_the_answers_to_the_guesses_are_worth_something(trial: Trial) -> None:
    """The paper's ablation: a corrector that is told that the guess has the right embedding already, or another's."""
    config, state = trial.attack().config, trial.prepared.state  # type: ignore[attr-defined, union-attr]
    inverter = Inverter.restore(config, state["hypothesis"], trial.runtime)
    corrector = Corrector.restore(inverter, config, state["corrector"])
    evidence = restore_pairs(state["pairs"]).embeddings[config.corrections_texts :]
    greedy = torch.zeros(config.max_tokens, len(evidence))
    guesses, _ = inverter.write(evidence, 0.0, greedy)
    answers = answers_to(trial.target(), guesses)

    def nearness(told: Tensor) -> float:
        texts = corrector.write(guesses, told, evidence, 0.0, greedy)
        return float(functional.cosine_similarity(answers_to(trial.target(), texts), evidence, dim=1).mean())

    corrected = nearness(answers)
    assert corrected > float(functional.cosine_similarity(answers, evidence, dim=1).mean()) + 0.05
    assert corrected > nearness(evidence) + 0.02
    assert corrected > nearness(answers.roll(1, 0)) + 0.04


def test_the_best_is_kept_and_each_stand_is_dearer(trial: Trial) -> None:
    target, found = trial.run()
    for item in found:
        assert all(earlier <= later for earlier, later in pairwise(item.history["cosine"]))
        assert all(earlier.queries < later.queries for earlier, later in pairwise(item.snapshots))
        assert item.snapshots[-1].samples == item.samples
        assert item.snapshots[-1].queries == target.ledger.cases[item.case.id].queries
        assert item.scores[0] == pytest.approx(item.history["cosine"][-1])
        cosines = functional.cosine_similarity(
            trial.target().scores(item.samples), item.case.evidence.values[None], dim=1
        )
        assert torch.allclose(item.scores, cosines, atol=1e-5)


def test_a_case_alone_takes_the_same_course(trial: Trial) -> None:
    whole = trial.run()[1][-1]
    (alone,) = trial.attack().run(trial.target(), trial.cases[-1:], trial.prepared, trial.runtime)
    assert alone.samples == whole.samples
    assert torch.equal(alone.scores, whole.scores)
    assert [stand.queries for stand in alone.snapshots] == [stand.queries for stand in whole.snapshots]


def test_it_spends_at_most_what_it_forecast(trial: Trial) -> None:
    attack = trial.attack()
    assert isinstance(attack, HasForecast)
    n_public = len(trial.dataset.split("public"))
    forecast = attack.forecast(1, n_public)
    prepared = trial.preparation[0].ledger.total
    assert n_public < prepared.queries <= forecast.preparation.queries == n_public + 256
    target, _ = trial.run()
    assert all(spent.queries <= forecast.per_case.queries for spent in target.ledger.cases.values())
    assert target.ledger.shared.queries == 0


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_budget_that_ends_leaves_what_was_found(trial: Trial, share: float) -> None:
    whole = trial.run()[0].ledger.total.queries
    budget = int(share * whole)
    target, found = trial.run(budget=budget)
    assert target.ledger.total.queries <= budget
    assert len(found) == len(trial.cases)
    assert not all(item.complete for item in found)
    assert all(bool((item.scores[:-1] >= item.scores[1:]).all()) for item in found)
    if share > 0.5:
        assert all(item.snapshots for item in found)


def test_one_text_and_the_likeliest_correction_is_enough(trial: Trial) -> None:
    target, found = trial.run(trial.attack(candidates=0, beam=1, branches=1, rounds=3))
    assert all(len(item.samples) == 1 for item in found)
    assert max(spent.queries for spent in target.ledger.cases.values()) <= 4


def test_what_is_missing_is_said(trial: Trial) -> None:
    attack = trial.attack()
    with pytest.raises(UsageError, match="learns from public texts"):
        attack.prepare(trial.target(), None, trial.runtime)
    with pytest.raises(DataError, match="vec2text was not prepared"):
        list(attack.run(trial.target(), trial.cases, None, trial.runtime))
    with pytest.raises(AccessDenied):
        trial.prepare(attack, trial.target(access=Access.LABEL))
