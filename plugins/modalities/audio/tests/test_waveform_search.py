"""Starts, random changes, filters and penalties of searches, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from mi_audio.splits import AudioSplit, quantised
from mi_audio.waveform_search import (
    LAPLACE,
    Processed,
    PublicSpeech,
    Views,
    equalised,
    excess,
    low_passed,
    requantised,
    roughness,
    sped,
    starts,
    variation,
)  # fmt: skip
from micore.contracts import Case
from micore.errors import DataError
from micore.kit.row_optimizers import RowAdam
from micore.runtime import Random, Runtime

CPU = Runtime(device=torch.device("cpu"), seed=3)
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(2)]
RATE = 16000


def tones(*hertz: float) -> torch.Tensor:
    times = torch.arange(RATE) / RATE
    return torch.stack([0.5 * (2 * torch.pi * f * times).sin() for f in hertz])


def test_starts_are_spread_as_they_say() -> None:
    laplace = starts("laplace", CASES, 4, RATE, None, CPU)
    assert laplace.shape == (2, 4, RATE)
    assert float(laplace.abs().mean()) == pytest.approx(LAPLACE, rel=0.03)
    for kind in ("laplace", "gaussian", "pink"):
        assert float(starts(kind, CASES, 4, RATE, None, CPU).std()) == pytest.approx(LAPLACE * 2**0.5, rel=0.05)
    assert 0 < float(starts("zeros", CASES, 1, RATE, None, CPU).abs().max()) < 1e-3


def test_pink_noise_falls_three_decibels_an_octave() -> None:
    noise = starts("pink", CASES[:1], 16, RATE, None, CPU)[0]
    frequencies, power = signal.welch(noise.numpy(), RATE, nperseg=2048)
    band = (frequencies > 100) & (frequencies < 6000)
    slope = np.polyfit(np.log(frequencies[band]), np.log(power.mean(axis=0)[band]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)


def test_a_case_begins_the_same_among_others() -> None:
    both, alone = (starts("gaussian", part, 2, 100, None, CPU) for part in (CASES, CASES[1:]))
    assert torch.equal(both[1], alone[0])


def test_public_clips_are_needed_and_kept() -> None:
    with pytest.raises(DataError, match="public"):
        starts("public-clip", CASES, 1, 100, None, CPU)
    with pytest.raises(DataError, match="public clips"):
        PublicSpeech.of(None, 3, Random(0))
    split = AudioSplit(quantised(tones(200, 300, 400)))
    speech = PublicSpeech.of_state(PublicSpeech.of(split, 2, Random(0)).state(), CPU)
    begun = starts("public-clip", CASES, 3, 20000, speech, CPU)
    assert begun.shape == (2, 3, 20000)
    assert any(torch.equal(begun[0, 0, :RATE], clip) for clip in split.take(range(3)))


def test_the_low_pass_is_butterworths_curve() -> None:
    hertz = (500.0, 2000.0, 4000.0)
    _, response = signal.butter(4, 2000, analog=True) and signal.freqs(*signal.butter(4, 2000, analog=True), hertz)
    found = low_passed(tones(*hertz), 2000.0).square().mean(dim=1).sqrt() / tones(*hertz).square().mean(dim=1).sqrt()
    np.testing.assert_allclose(found.numpy(), np.abs(response), rtol=1e-3)


def test_an_equaliser_passes_through_its_gains() -> None:
    bands, top = 32, 2595 * np.log10(1 + 8000 / 700)
    hertz = [700 * (10 ** (k / 31 * top / 2595) - 1) for k in (5, 17)]
    gains = torch.zeros(2, bands)
    gains[0, 5], gains[1, 17] = 0.7, -0.7
    rounded = tones(*(round(f) for f in hertz))
    found = equalised(rounded, gains).square().mean(dim=1).sqrt() / rounded.square().mean(dim=1).sqrt()
    assert found.tolist() == pytest.approx([np.exp(0.7), np.exp(-0.7)], rel=0.02)


def test_other_speeds_are_other_pitches() -> None:
    for speed in (0.8, 1.25):
        spectrum = torch.fft.rfft(sped(tones(400), speed)[0, :8000]).abs()
        assert 2 * int(spectrum.argmax()) == pytest.approx(400 * speed, abs=2)
    assert torch.equal(sped(tones(400), 1.0), tones(400))


def test_views_change_as_they_are_told() -> None:
    bank, waveforms = torch.randn(RATE, generator=torch.Generator().manual_seed(0)), tones(200, 300)
    middle = torch.full((2, Views.N_NUMBERS), 0.5)
    assert torch.equal(Views(bank=bank)(waveforms, middle), waveforms)
    torch.testing.assert_close(Views(bank=bank, gain=0.5, shift=0.5, colour=4.0)(waveforms, middle), waveforms)
    numbers = torch.rand(2, Views.N_NUMBERS, generator=torch.Generator().manual_seed(1))
    added = Views(bank=bank, noise=0.1)(waveforms, numbers) - waveforms
    assert float(added.std()) == pytest.approx(0.1, rel=0.03)
    loud = Views(bank=bank, gain=0.5)(waveforms, numbers)
    torch.testing.assert_close(loud, waveforms * (1 + 0.5 * (2 * numbers[:, 1:2] - 1)))


def test_penalties_are_their_formulas() -> None:
    values = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    array = values.double().numpy()
    times, bands = (np.abs(np.diff(array, axis=axis)).mean(axis=(1, 2)) for axis in (2, 1))
    np.testing.assert_allclose(variation(values).numpy(), times + bands, rtol=1e-5)
    np.testing.assert_allclose(roughness(values[:, 0]).numpy(), np.abs(np.diff(array[:, 0])).mean(axis=1), rtol=1e-5)
    level = torch.stack([torch.full((100,), 0.05), torch.full((100,), 0.3)])
    assert excess(level, 0.1).tolist() == pytest.approx([0, 4], rel=1e-4)


def test_process_comes_after_every_so_many_steps_of_a_row() -> None:
    adam = RowAdam(learning_rate=0.1)
    optimizer = Processed(optimizer=adam, process=lambda values: values + 100, every=3)
    values, steps = torch.zeros(3, 1), torch.tensor([2.0, 3.0, 6.0])
    moved, _ = optimizer.step(values, torch.ones(3, 1), optimizer.start(values), steps)
    assert (moved > 50).flatten().tolist() == [False, True, True]


def test_waveforms_survive_a_second_writing() -> None:
    once = requantised(2 * torch.rand(2, 50) - 1)
    assert torch.equal(once, requantised(once))
