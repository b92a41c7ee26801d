"""Inversion in the latents of a prior of speech, on the planted problem, with either prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mi_attack_audio_gan_mi.attack import SpeechPriorInversion
from mi_attack_audio_gan_mi.priors import restore_prior
from micore.configs import preset_config
from micore.contracts import HasForecast, HasPrior
from micore.errors import ConfigError, DataError
from micore.runs.subjects import sample_prior
from micore.runtime import Runtime
from micore.shelf import Shelf
from micore.testing import Trial
from micore.threat import Spending

CPU = Runtime(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("audio-gan-mi", tile=16)


def test_it_recovers_more_than_its_prior_shows(toy: Trial) -> None:
    attack = toy.attack()
    _, found = toy.run(attack)
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    floor = toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))
    assert abs(floor) < 0.15
    assert toy.recovered(found) > max(floor, 0) + 0.05


def test_it_spends_what_it_forecast_and_prepares_without_the_target(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, found = toy.run(attack)
    assert isinstance(attack, HasForecast)
    assert prepared_on.ledger.total == Spending()
    assert target.ledger.cases == {case.id: attack.forecast(4, 160).per_case for case in toy.cases}
    assert all(item.complete for item in found)


def test_scores_are_the_confidence_in_what_is_given_back(toy: Trial) -> None:
    _, found = toy.run()
    assert toy.prepared is not None
    prior = restore_prior(toy.prepared.state, toy.runtime)
    for item in found:
        assert toy.setting.problem(item.samples) is None
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        heard = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, heard, rtol=1e-3, atol=1e-3)
        assert item.latents is not None
        assert len(item.latents) == len(item.samples) == 3
        assert prior.spectrograms(item.latents).shape[1:] == prior.renderer.shape
        told = item.history
        assert 0 < told["searched confidence"][0] <= 1
        assert 0 < told["rendered confidence"][0] <= float(item.scores[0])


def test_confidence_in_each_class_rises_over_that_of_the_starts(toy: Trial) -> None:
    """By little in classes that the prior hardly makes."""
    means = [torch.stack([item.scores.mean() for item in toy.run(toy.attack(steps=steps))[1]]) for steps in (0, 50)]
    assert bool((means[1] > means[0]).all())


def test_the_wasserstein_gan_learns_the_public_spectrograms() -> None:
    toy = Trial("audio-gan-mi", tile=16, prior="gan", iterations=150, batch_size=16, steps=5, restarts=2)
    attack = toy.attack()
    _, found = toy.run(attack)
    assert all(toy.setting.problem(item.samples) is None for item in found)
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    prior = restore_prior(toy.prepared.state, toy.runtime)
    clips = toy.dataset.split("public").take(range(100))
    real = prior.scale.scaled(prior.renderer.analysed(clips))
    with torch.no_grad():
        made = prior.generator(CPU.rng("z").normal((100, prior.generator.latent_dim)))
        scores = [prior.realism(part).mean() for part in (real, made, 2 * torch.randn(real.shape))]
    assert (made.mean(dim=(0, 2)) - real.mean(dim=(0, 2))).abs().mean() < 0.5
    assert scores[0] < scores[2]


@pytest.mark.parametrize("prior", ["gan", "vae"])
def test_one_prior_serves_all_targets(prior: str, toy: Trial, tmp_path: Path) -> None:
    runtime = replace(toy.runtime, shelf=Shelf(tmp_path))
    states = []
    for _ in range(2):
        attack = toy.attack(prior=prior, iterations=2)
        states.append(attack.prepare(toy.target(), toy.dataset.split("public"), runtime))
    assert len(list(tmp_path.glob(f"speech-{prior}-*.safetensors"))) == 1
    samples = [attack.prior(state, runtime).sample(2, CPU.rng("same")) for state in states]  # type: ignore[attr-defined]
    assert torch.equal(*samples)


def quiet(spectrograms: Tensor, length: int) -> Tensor:
    """Stand in for a vocoder."""
    return torch.zeros(len(spectrograms), length)


def test_a_vocoder_takes_the_place_of_griffin_lim(toy: Trial) -> None:
    _, found = toy.run(toy.attack(vocoder=f"{__name__}:quiet", steps=2))
    assert not any(item.samples.any() for item in found)
    with pytest.raises(ConfigError, match="vocoder"):
        toy.run(toy.attack(vocoder="nobody.has:this"))


def test_what_is_missing_is_said(toy: Trial) -> None:
    attack = SpeechPriorInversion(preset_config(SpeechPriorInversion, "smoke", {}, "audio-gan-mi"))
    with pytest.raises(DataError, match="public clips"):
        attack.prepare(toy.target(), None, CPU)
    with pytest.raises(DataError, match="not prepared"):
        list(attack.run(toy.target(), toy.cases, None, CPU))
