"""Spectrograms and waveforms of them, against torchaudio."""

from __future__ import annotations

import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from mi_audio.features import FLOOR, LogMel
from mi_audio.synthesis import Voice, rendered, spoken
from micore.runtime import Random


@pytest.fixture(scope="module")
def speech():
    voices = [Voice.drawn(Random(seed)) for seed in (1, 2)]
    tracks = [spoken("183", voice, 101, Random(5)) for voice in voices]
    return rendered(tracks, voices, 16_000, Random(7))


@pytest.mark.parametrize(("rate", "n_fft"), [(8000, 256), (16_000, 512)])
def test_the_spectrogram_is_the_usual_one(speech, rate, n_fft):
    front = LogMel(rate)
    assert front.n_fft == n_fft
    usual = MelSpectrogram(rate, n_fft, hop_length=rate // 100, n_mels=40, pad_mode="constant")
    waveforms = speech[:, :rate]
    assert torch.allclose(front(waveforms), (usual(waveforms) + FLOOR).log(), atol=1e-4)
    assert front(waveforms).shape == (2, 40, front.frames(rate))


def test_a_rendered_spectrogram_comes_near_to_itself(speech):
    front = LogMel(16_000)
    wanted = front(speech)
    found = front.rendered(wanted, speech.shape[1])
    assert found.shape == speech.shape
    assert float(found.abs().max()) <= 1
    apart = (front(found) - wanted).abs().mean()
    other = (front(speech.flip(0)) - wanted).abs().mean()
    assert float(apart) < 0.4 * float(other)


def test_rendering_is_the_same_twice_and_by_row(speech):
    front = LogMel(16_000)
    both = front.rendered(front(speech), speech.shape[1], iterations=4)
    one = front.rendered(front(speech[:1]), speech.shape[1], iterations=4)
    assert torch.allclose(both[:1], one, atol=1e-5)


def test_gradients_reach_the_waveform(speech):
    waveforms = speech.clone().requires_grad_(True)
    LogMel(16_000)(waveforms).sum().backward()
    assert bool(waveforms.grad.isfinite().all())
    assert float(waveforms.grad.abs().sum()) > 0
