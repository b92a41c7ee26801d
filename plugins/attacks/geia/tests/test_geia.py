"""GEIA on the planted problem: it recovers, ranks by the target's answers, and spends what it said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from mi_attack_geia.attack import GeiaConfig, GenerativeEmbeddingInversion
from micore.contracts import Attack, HasBaselines, HasControl, HasForecast
from micore.errors import AccessDenied, BudgetExceeded, DataError, UsageError
from micore.testing import Trial
from micore.threat import Access

BLIND_AND_FEW: tuple[dict[str, Any], ...] = ({"candidates": 0}, {"candidates": 3, "public": 5})


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial("geia", steps=400)  # what smoke trains is no nearer than the nearest public text


def test_it_beats_its_control_and_the_nearest_public_text(trial: Trial) -> None:
    attack = trial.attack()
    assert isinstance(attack, HasControl)
    assert isinstance(attack, HasBaselines)
    _, found = trial.run()
    control = list(attack.control(trial.cases, trial.prepared, trial.runtime))
    nearest = attack.baselines(trial.cases, trial.prepared, trial.runtime)["nearest-public"]
    assert trial.recovered(found) > trial.recovered(control) + 0.3
    first = [type(item)(case=item.case, samples=item.samples[:1], scores=item.scores[:1]) for item in found]
    assert trial.recovered(first) > trial.recovered(list(nearest))
    public = set(trial.dataset.split("public").take(range(512)))
    assert all(len(item.samples) == 1 and item.samples[0] in public for item in nearest)


def test_samples_come_nearest_first(trial: Trial) -> None:
    _, found = trial.run()
    asked = trial.target()
    for item in found:
        cosines = functional.cosine_similarity(asked.scores(item.samples), item.case.evidence.values[None], dim=1)
        assert torch.allclose(item.scores, cosines, atol=1e-5)
        assert item.scores.dtype == torch.float32
        assert len(item.samples) == 5
        assert item.complete


def test_ranking_finds_nearer_texts_than_the_likeliest(trial: Trial) -> None:
    _, ranked = trial.run()
    target, single = trial.run(trial.attack(candidates=0))
    assert target.ledger.total.queries == 0
    gain = 0.0
    for one, many in zip(single, ranked, strict=True):
        assert one.samples[0] in many.samples
        cosine = functional.cosine_similarity(trial.target().scores(one.samples), one.case.evidence.values[None], dim=1)
        assert float(many.scores[0]) >= float(cosine[0]) - 1e-6
        gain += float(many.scores[0] - cosine[0])
        assert float(one.scores[0]) < 0, "a log-likelihood"
    assert gain > 0


def test_it_spends_at_most_what_it_forecast(trial: Trial) -> None:
    attack = trial.attack()
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(1, len(trial.dataset.split("public")))
    assert trial.preparation[0].ledger.total == forecast.preparation
    target, found = trial.run()
    for item in found:
        different = len({text for text in item.samples if text})
        assert target.ledger.cases[item.case.id].queries == different <= forecast.per_case.queries
    assert target.ledger.shared.queries == 0
    blind, few = (GenerativeEmbeddingInversion(GeiaConfig(**change)).forecast(1, 9) for change in BLIND_AND_FEW)
    assert blind.per_case.queries == 0
    assert few.preparation.queries == 5


def test_a_budget_that_ends_leaves_the_likeliest_texts(trial: Trial) -> None:
    whole = trial.run()[0].ledger.total.queries
    target, found = trial.run(budget=whole // 2)
    assert target.ledger.total.queries <= whole // 2
    assert len(found) == len(trial.cases)
    complete = [item.complete for item in found]
    assert complete == sorted(complete, reverse=True)
    assert {True, False} == set(complete)
    for item in found:
        assert bool((item.scores[:-1] >= item.scores[1:]).all())
        assert item.complete or float(item.scores.max()) <= 0


def test_a_budget_that_ends_is_told_after_all_was_given(trial: Trial) -> None:
    given = trial.attack().run(trial.target(budget=1), trial.cases, trial.prepared, trial.runtime)
    assert [next(given).case.id for _ in trial.cases] == [case.id for case in trial.cases]
    with pytest.raises(BudgetExceeded):
        next(given)


def test_what_is_missing_is_said(trial: Trial) -> None:
    attack = GenerativeEmbeddingInversion(GeiaConfig())
    assert isinstance(attack, Attack)
    with pytest.raises(UsageError, match="learns from public texts"):
        attack.prepare(trial.target(), None, trial.runtime)
    with pytest.raises(DataError, match="geia was not prepared"):
        list(attack.run(trial.target(), trial.cases, None, trial.runtime))
    with pytest.raises(AccessDenied):
        trial.prepare(attack, trial.target(access=Access.LABEL))
