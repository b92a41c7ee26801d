"""Distances and shares against plain loops and numpy, and the evaluator as the core calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mi_audio.datasets.dataset import AudioDataset
from mi_audio.datasets.voices import open_voices
from mi_audio.modality import AudioModality
from mi_audio.spectra import long_term, shaped_noise, stft
from mi_evaluator_speech.evaluator import SpeechConfig, SpeechEvaluator
from mi_evaluator_speech.spectral import (
    colour_distances,
    colours,
    frames_of,
    nearest_of_label,
    spectral_distances,
    spectrogram,
)
from mi_evaluator_speech.speechlike import moving_share, voiced_share
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject
from micore.errors import DataError
from micore.runtime import Random, Runtime

CPU = Runtime(device=torch.device("cpu"))
DATA = open_voices(None, speakers=4, clips=6, held=4, others=4, other_clips=6, seconds=0.8)
LENGTH = DATA.private.clips.shape[1]
TIMES = torch.arange(LENGTH) / 16000
NOISE = 0.1 * Random(0).normal((8, LENGTH))


def speech(split: str = "private", per_speaker: int = 2) -> Tensor:
    part = DATA.split(split)
    assert part.labels is not None
    return torch.cat([part.take(part.labels.eq(k).nonzero().flatten()[:per_speaker]) for k in range(4)])


# kernels --------------------------------------------------------------------------------------------------


def test_spectral_distance_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(3, 5, 4)), rng.normal(size=(2, 6, 4))
    found = spectral_distances(torch.tensor(one), torch.tensor(other))
    for i in range(3):
        for j in range(2):
            pairs = [[np.sqrt(((a - b) ** 2).mean()) for b in other[j]] for a in one[i]]
            expected = (np.min(pairs, axis=1).mean() + np.min(pairs, axis=0).mean()) / 2
            assert float(found[i, j]) == pytest.approx(expected)


def test_distances_do_not_hear_order_or_loudness() -> None:
    mel, clip = spectrogram(torch.device("cpu")), speech(per_speaker=1)[:1]
    turned = clip.roll(LENGTH // 2, dims=1)
    half = torch.cat([clip[:, : LENGTH // 2], clip[:, : LENGTH // 2]], dim=1)
    frames = [frames_of(part, mel) for part in (clip, 0.3 * clip, turned, half, NOISE[:1])]
    found = [float(spectral_distances(frames[0], other)) for other in frames]
    assert found[0] < 0.1
    assert max(found[1:4]) < 0.4 * found[4]


def test_colours_are_levels_of_long_term_spectra() -> None:
    clips = speech(per_speaker=1)
    flat = colours(clips)
    assert float(colour_distances(flat, flat).max()) == 0
    tilt = torch.fft.rfft(clips)
    bins = torch.linspace(0, 1, tilt.shape[1])
    tilted = colours(torch.fft.irfft(tilt * 10 ** (12 * bins / 20), n=LENGTH))
    # 12 dB from end to end are 12 / sqrt(12) about their mean
    torch.testing.assert_close(colour_distances(flat, tilted), torch.full((4,), 3.46), atol=0.4, rtol=0)
    shaped = shaped_noise(long_term(clips), LENGTH, Random(1))
    assert (
        float(colour_distances(colours(shaped), flat).max())
        < 3
        < float(colour_distances(colours(NOISE[:4]), flat).min())
    )


def test_the_nearest_is_sought_among_clips_of_the_label() -> None:
    rng = np.random.default_rng(1)
    frames, others = torch.tensor(rng.normal(size=(3, 5, 4))), torch.tensor(rng.normal(size=(6, 5, 4)))
    found = nearest_of_label(frames, torch.tensor([1, 0, 7]), others, torch.tensor([0, 0, 1, 1, 1, 2]))
    whole = spectral_distances(frames, others)
    torch.testing.assert_close(found[:2], torch.stack([whole[0, 2:5].min(), whole[1, :2].min()]))
    assert found[2].isnan()


def test_voiced_frames_are_those_with_a_pitch() -> None:
    buzz = torch.stack([sum((2 * torch.pi * hertz * k * TIMES).sin() / k for k in range(1, 8)) / 4
                        for hertz in (70, 120, 220, 390)])  # fmt: skip
    assert float(voiced_share(buzz).min()) > 0.95
    assert float(voiced_share(NOISE).max()) < 0.05
    half = torch.cat([buzz[1:2, : LENGTH // 2], NOISE[:1, LENGTH // 2 :]], dim=1)
    assert float(voiced_share(half)) == pytest.approx(0.5, abs=0.06)
    still = torch.cat([buzz[1:2, : LENGTH // 2], torch.zeros(1, LENGTH // 2)], dim=1)
    assert float(voiced_share(still)) == pytest.approx(0.5, abs=0.06)
    assert float(voiced_share(torch.zeros(1, LENGTH))) == 0
    assert voiced_share(NOISE[:, :100]).shape == (8,)


def test_autocorrelation_is_that_of_numpy() -> None:
    """A frame of 100 Hz with noise: periodic above the threshold when and only when numpy says so."""
    shares = []
    for level in (0.2, 3.0):
        clip = (2 * torch.pi * 100 * TIMES).sin()[None, :640] + level * NOISE[:1, :640] * 10
        frame = (clip - clip.mean()).double().numpy()[0] * np.hanning(641)[:-1]
        window = np.hanning(641)[:-1]
        own, whole = (np.correlate(part, part, "full")[639:] for part in (frame, window))
        strongest = (own[40:267] / own[0] / (whole[40:267] / whole[0])).max()
        shares.append(float(voiced_share(clip)) == (strongest > 0.5))
    assert shares == [True, True]


@pytest.mark.parametrize(("hertz", "moves"), [(0.0, False), (0.7, False), (4.0, True), (8.0, True), (20.0, False)])
def test_loudness_moves_with_syllables_or_not(hertz: float, moves: bool) -> None:
    times = torch.arange(32000) / 16000
    swell = 10 ** (8 * (2 * torch.pi * hertz * times).sin() / 20)
    carrier = 0.05 * Random(3).normal((1, 32000))
    assert (float(moving_share(swell * carrier)) > 0.8) == moves


def test_made_voices_are_speech_and_noise_with_their_colour_is_not() -> None:
    clips = speech()
    shaped = shaped_noise(long_term(clips), LENGTH, Random(1))
    assert float(voiced_share(clips).mean()) > 0.4 > 0.1 > float(voiced_share(shaped).mean())
    assert float(moving_share(clips).mean()) > 0.5 > 0.1 > float(moving_share(shaped).mean())
    assert float(stft(shaped).abs().mean()) > 0


# the evaluator --------------------------------------------------------------------------------------------


def subject(name: str, waveforms: Tensor, per_case: int = 2) -> Subject:
    items = [
        Reconstruction(case=Case(id=f"class-{k}", goal="class", label=k), samples=part, scores=torch.zeros(len(part)))
        for k, part in enumerate(waveforms.split(per_case))
    ]
    return Subject(name=name, reconstructions=items)


def judged(*subjects: Subject, data: AudioDataset = DATA, **options: Any) -> Mapping[tuple[str, str], Measurement]:
    reference = Reference(modality=AudioModality(), dataset=data, target=None)
    found = SpeechEvaluator(SpeechConfig(resamples=200, **options)).evaluate(subjects, reference, CPU)
    return {(item.subject, item.name): item for item in found}


def test_private_public_and_coloured_sounds_are_told_apart() -> None:
    public = DATA.public
    assert public is not None
    found = judged(
        subject("own", speech()), subject("held", speech("holdout")), subject("public", public.take(range(8))),
        subject("colour", shaped_noise(long_term(speech()), LENGTH, Random(1))), subject("noise", NOISE),
    )  # fmt: skip
    values = {key: item.value for key, item in found.items()}
    names = ("spectral-private", "spectral-public", "spectral-private-white", "spectral-public-white", "colour",
             "voiced", "syllables")  # fmt: skip
    assert sorted(name for who, name in found if who == "own") == sorted(names)
    assert values["own", "spectral-private"] < 0.1 < values["held", "spectral-private"]
    assert values["held", "spectral-private"] < values["colour", "spectral-private"]
    assert values["public", "spectral-public"] < 0.1 < values["public", "spectral-private"]
    assert values["colour", "colour"] < values["public", "colour"] < values["noise", "colour"]
    # without its colour it is as far as noise is
    assert values["colour", "spectral-private-white"] > 0.8 * values["noise", "spectral-private-white"]
    assert values["held", "spectral-private-white"] < values["colour", "spectral-private-white"]
    assert found["own", "voiced"].direction == "none"


def test_data_without_public_clips_have_no_distance_to_them_and_broken_samples_are_left_out() -> None:
    broken = speech()
    broken[0] = torch.nan
    found = judged(subject("own", broken), data=replace(DATA, public=None), private_clips=2)
    assert ("own", "spectral-public") not in found
    for name in ("spectral-private", "colour", "voiced", "syllables"):
        assert found["own", name].n == 7
    with pytest.raises(DataError, match="speakers without private clips"):
        judged(subject("own", speech()), data=replace(DATA, classes=(*DATA.classes, "nobody")))
    assert isinstance(SpeechEvaluator(SpeechConfig()), Evaluator)
