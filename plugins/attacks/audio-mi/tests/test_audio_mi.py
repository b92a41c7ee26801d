"""Audio MI on the planted problem of hums, and its domains against plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mi_attack_audio_mi.attack import AudioInversion
from mi_attack_audio_mi.domains import filtered, front_of, seen
from mi_audio.adapter import AudioAdapter
from mi_audio.networks import MelCnn
from mi_audio.sincnet import SincNet
from mi_audio.waveform_search import requantised
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, Reconstruction
from micore.errors import ConfigError, DataError, ModelError
from micore.testing import Trial


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial("audio-mi")


@pytest.fixture(scope="module")
def mel() -> Trial:
    return Trial("audio-mi", domain="mel", steps=40)


def confidences(trial: Trial, item: Reconstruction) -> Tensor:
    return trial.target().scores(item.samples)[:, item.case.label]


def test_it_recovers_more_than_public_clips_and_noise_do(trial: Trial) -> None:
    public = trial.dataset.split("public").take(range(160))
    noise = trial.setting.noise(64, trial.runtime.rng("noise"))
    floors = [
        max(0.0, float(torch.stack([trial.setting.judge(case, part).mean() for case in trial.cases]).mean()))
        for part in (public, noise)
    ]
    for domain in ("equaliser", "waveform", "mel"):
        own = Trial("audio-mi", domain=domain)
        _, found = own.run()
        assert own.recovered(found) > max(floors) + 0.15, domain


def test_samples_are_judged_by_the_target_as_they_are_given_back(trial: Trial, mel: Trial) -> None:
    for each in (trial, mel):
        _, found = each.run()
        for item in found:
            torch.testing.assert_close(item.scores, confidences(each, item), rtol=1e-3, atol=1e-4)
            assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
            assert torch.equal(item.samples, requantised(item.samples))
            assert list(item.history["confidence-rendered"]) == item.scores.tolist()
            assert item.latents is None


def test_a_spectrogram_convinces_more_than_its_waveform_does(mel: Trial) -> None:
    _, found = mel.run()
    optimised = sum(sum(item.history["confidence-optimised"]) for item in found)
    rendered = sum(sum(item.history["confidence-rendered"]) for item in found)
    assert optimised > 0.95 * sum(len(item.scores) for item in found)
    assert rendered < 0.9 * optimised


def test_no_step_gives_the_clips_that_the_target_chose() -> None:
    trial = Trial("audio-mi", steps=0)
    _, found = trial.run()
    public = trial.dataset.split("public").take(range(160))
    scores = trial.target().scores(public)
    for item in found:
        assert all((public == sample).all(dim=1).any() for sample in item.samples)
        assert float(item.scores[0]) <= float(scores[:, item.case.label].max()) + 1e-5


def test_the_network_sees_the_spectrogram_in_place_of_its_own() -> None:
    network = MelCnn(3, 8000, width=8).eval()
    spectrograms = torch.randn(2, 40, 60).requires_grad_()
    with seen(front_of(network), spectrograms):
        logits = network(torch.zeros(2, 4800))
    expected = network.head(network.extract_mel((spectrograms + 4) / 4))
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(network(torch.zeros(2, 4800)), logits), "the front is as before"


def test_the_domain_mel_needs_a_front() -> None:
    with pytest.raises(ModelError, match="log-mel"):
        front_of(SincNet(3, 8000))


def test_a_flat_equaliser_changes_nothing_and_nothing_is_clipped() -> None:
    clips = torch.rand(2, 1600) - 0.5
    torch.testing.assert_close(filtered(clips, torch.zeros(2, 32)), clips, atol=1e-5, rtol=0)
    assert float(filtered(clips, torch.full((2, 32), 3.0)).abs().max()) <= 1 + 1e-6


def test_the_target_is_asked_as_often_as_forecast(trial: Trial) -> None:
    attack = trial.attack()
    assert isinstance(attack, Attack)
    assert isinstance(attack, HasForecast)
    target, found = trial.run(attack)
    forecast = attack.forecast(target.n_classes, 160)
    assert target.ledger.cases == {case.id: forecast.per_case for case in trial.cases}
    spent, _ = trial.preparation
    assert spent.ledger.total == forecast.preparation
    assert all(item.complete for item in found)


def test_random_changes_and_a_low_pass_are_part_of_the_search() -> None:
    options = {"domain": "waveform", "start": "pink", "choose": "random", "steps": 10}
    plain, changed, processed = (
        Trial("audio-mi", **options, **more).run()[1][0].samples
        for more in ({}, {"noise": 0.05, "gain": 0.3, "shift": 0.2, "colour": 3.0}, {"low_pass_hz": 1000.0})
    )
    assert not torch.equal(plain, changed)
    high = [float(torch.fft.rfft(samples)[:, -600:].abs().mean()) for samples in (plain, processed)]
    assert high[1] < 0.2 * high[0]


def test_what_is_missing_or_wrong_is_said(trial: Trial) -> None:
    attack = trial.attack()
    with pytest.raises(DataError, match="public clips"):
        attack.prepare(trial.target(), None, trial.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(attack.run(trial.target(), trial.cases, None, trial.runtime))
    for option, value in (("domain", "phase"), ("gain", 1.0), ("speeds", [0.0]), ("start", "silence")):
        with pytest.raises(ConfigError, match=option):
            preset_config(AudioInversion, "smoke", {option: value}, "audio-mi")


def test_rendering_keeps_the_length_of_a_clip(mel: Trial) -> None:
    target, found = mel.run()
    assert AudioAdapter(target.input_spec)(found[0].samples).shape[1] == target.input_spec.shape[0]
