"""From voiceprints to voices on the planted problem: both attacks beat controls, keep to forecasts, fail clearly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mi_attack_embedding_to_voice.attack import VoiceprintInversion
from mi_attack_embedding_to_voice.gradient import VoiceprintDescent
from mi_attack_embedding_to_voice.public_voices import PublicVoices, asked
from mi_audio.evidence import Voiceprint
from micore.configs import preset_config
from micore.contracts import Case, HasBaselines, HasControl, HasForecast
from micore.errors import AccessDenied, BudgetExceeded, DataError, UsageError
from micore.runtime import Runtime
from micore.testing import Trial
from micore.threat import Access

CPU = Runtime(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def learned() -> Trial:
    return Trial("embedding-to-voice")


@pytest.fixture(scope="module")
def descended() -> Trial:
    return Trial("embedding-to-voice-gradient")


def test_the_inverter_recovers_more_than_without_a_voiceprint(learned: Trial) -> None:
    attack = learned.attack()
    _, found = learned.run(attack)
    assert isinstance(attack, HasControl)
    control = list(attack.control(learned.cases, learned.prepared, learned.runtime))
    assert len(control[0].samples) == len(found[0].samples)
    floor = learned.recovered(control)
    assert abs(floor) < 0.15
    assert learned.recovered(found) > floor + 0.1


@pytest.mark.parametrize("name", ["learned", "descended"])
def test_they_spend_what_they_forecast(name: str, request: pytest.FixtureRequest) -> None:
    trial: Trial = request.getfixturevalue(name)
    attack, (prepared_on, _) = trial.attack(), trial.preparation
    target, found = trial.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(4, len(trial.dataset.split("public")))
    assert prepared_on.ledger.total == forecast.preparation
    assert target.ledger.cases == {case.id: forecast.per_case for case in trial.cases}
    assert all(item.complete and item.scores.tolist() == sorted(item.scores.tolist(), reverse=True) for item in found)


@pytest.mark.parametrize("name", ["learned", "descended"])
def test_scores_are_cosines_of_what_is_given_back(name: str, request: pytest.FixtureRequest) -> None:
    trial: Trial = request.getfixturevalue(name)
    _, found = trial.run()
    for item in found:
        assert trial.setting.problem(item.samples) is None
        assert isinstance(item.case.evidence, Voiceprint)
        heard = trial.target().scores(item.samples).double()
        wanted = item.case.evidence.values.double().expand_as(heard)
        expected = functional.cosine_similarity(heard, wanted, dim=1)
        torch.testing.assert_close(item.scores.double(), expected, rtol=0, atol=1e-3)


def test_the_descent_raises_the_cosine_over_that_of_its_starts(descended: Trial) -> None:
    attack = descended.attack()
    _, found = descended.run(attack)
    assert isinstance(attack, HasBaselines)
    nearest = attack.baselines(descended.cases, descended.prepared, descended.runtime)["nearest-public"]
    before = torch.stack([item.scores[0] for item in nearest]).mean()
    assert torch.stack([item.scores[0] for item in found]).mean() > before


@pytest.mark.parametrize("options", [{"start": "noise"}, {"variable": "waveform"}])
def test_other_starts_and_waveforms(options: dict[str, str], descended: Trial) -> None:
    attack = descended.attack(**options, steps=15)
    untouched = descended.attack(**options, steps=0)
    found, starts = (descended.run(each)[1] for each in (attack, untouched))
    assert descended.setting.problem(found[0].samples) is None
    gains = [after.scores.mean() - before.scores.mean() for after, before in zip(found, starts, strict=True)]
    assert torch.stack(gains).mean() > 0


def test_nearest_public_is_the_nearest_by_cosine(learned: Trial) -> None:
    assert learned.prepared is not None
    voices = PublicVoices.restored(learned.prepared.state["answers"], CPU)
    attack = learned.attack()
    assert isinstance(attack, HasBaselines)
    found = attack.baselines(learned.cases, learned.prepared, learned.runtime)["nearest-public"]
    prints = voices.prints.double().numpy()
    for item in found:
        assert isinstance(item.case.evidence, Voiceprint)
        wanted = item.case.evidence.values.double().numpy()
        similarity = (prints @ wanted) / ((prints**2).sum(1) ** 0.5 * (wanted**2).sum() ** 0.5)
        assert torch.equal(item.samples[0], voices.waveforms(torch.tensor([int(similarity.argmax())]))[0])
        assert item.scores[0] == pytest.approx(similarity.max(), abs=1e-5)


def test_standardising_is_undone() -> None:
    prints = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3, 0.1, 0.0])
    voices = PublicVoices(clips=torch.zeros(20, 8, dtype=torch.int16), prints=prints)
    values = voices.standardised(prints)
    assert torch.isfinite(values).all()
    torch.testing.assert_close(values[:, :4].std(dim=0), torch.ones(4))
    torch.testing.assert_close(voices.unstandardised(values), prints)


def test_a_budget_leaves_what_was_found(learned: Trial) -> None:
    target, found = learned.run(budget=20)
    assert target.ledger.total.queries <= 20
    assert len(found) == len(learned.cases)
    assert not any(item.complete for item in found)


def test_a_cycle_through_the_target_needs_white_box_access(learned: Trial) -> None:
    attack = learned.attack(cycle_weight=0.5, iterations=3)
    with pytest.raises(AccessDenied):
        learned.prepare(attack, learned.target())
    target = learned.target(access=Access.WHITE_BOX)
    assert learned.prepare(attack, target) is not None
    assert isinstance(attack, HasForecast)
    assert target.ledger.total == attack.forecast(4, len(learned.dataset.split("public"))).preparation


def test_asking_goes_on_where_it_was_killed(learned: Trial) -> None:
    public = learned.dataset.split("public")
    whole = asked(learned.target(), public, 100, "it", CPU)
    target = learned.target(budget=70)
    with pytest.raises(BudgetExceeded):
        asked(target, public, 100, "it", CPU)
    assert len(whole["clips"]) == len(whole["prints"]) == 100


def test_what_is_missing_or_does_not_fit_is_said(learned: Trial) -> None:
    for kind, name in ((VoiceprintInversion, "embedding-to-voice"), (VoiceprintDescent, "embedding-to-voice-gradient")):
        attack = kind(preset_config(kind, "smoke", {}, name))
        with pytest.raises(DataError, match="public clips"):
            attack.prepare(learned.target(access=Access.WHITE_BOX), None, CPU)
        with pytest.raises(DataError, match="not prepared"):
            list(attack.run(learned.target(access=Access.WHITE_BOX), learned.cases, None, CPU))
    odd = Case(id="clip-0", goal="instance", evidence=Voiceprint(values=torch.zeros(3)))
    with pytest.raises(UsageError, match="3 dimensions"):
        list(learned.attack().run(learned.target(), [odd], learned.prepared, CPU))
    bare = Case(id="clip-0", goal="instance")
    with pytest.raises(UsageError, match="not Voiceprint"):
        list(learned.attack().run(learned.target(), [bare], learned.prepared, CPU))
