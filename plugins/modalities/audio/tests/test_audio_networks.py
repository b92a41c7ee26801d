"""Speech networks keep their contract."""

from __future__ import annotations

import pytest
import torch

from mi_audio.builders import ecapa, mel_cnn, sincnet, speaker_encoder, x_vector
from mi_audio.sincnet import SincFilters, SincNet
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.runtime import Random

SPEC = InputSpec(shape=(4000,), options={"sampling_rate": 8000})
BUILDERS = {"mel-cnn": mel_cnn, "x-vector": x_vector, "ecapa": ecapa, "sincnet": sincnet}


def noise(n: int, length: int) -> torch.Tensor:
    return 0.1 * Random(3).normal((n, length))


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_is_a_head_on_features(name):
    network = BUILDERS[name](5, SPEC).eval()
    waveforms = noise(3, 4000)
    with torch.no_grad():
        features = network.features(waveforms)
        assert features.shape == (3, network.n_features)
        assert torch.allclose(network(waveforms), network.head(features))
        assert torch.allclose(network(waveforms)[:1], network(waveforms[:1]), atol=1e-5)
        assert network(noise(2, 6000)).shape == (2, 5)
        assert network(noise(2, network.min_length)).shape == (2, 5)
    with pytest.raises(ValueError, match="expected"):
        network(noise(2, network.min_length - 1))


@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_reach_the_waveform(name):
    network = BUILDERS[name](5, SPEC).eval()
    waveforms = noise(2, 4000).requires_grad_(True)
    network(waveforms).logsumexp(dim=1).sum().backward()
    assert bool(waveforms.grad.isfinite().all())
    assert bool((waveforms.grad != 0).any(dim=1).all())


@pytest.mark.parametrize("name", BUILDERS)
def test_silence_gives_finite_logits(name):
    network = BUILDERS[name](5, SPEC).eval()
    assert bool(network(torch.zeros(2, 4000)).isfinite().all())


def test_filters_pass_their_band():
    filters = SincFilters(8, 251, 8000)
    response = torch.fft.rfft(filters.kernels()[:, 0], n=8000).abs()  # one bin is one hertz
    low = (filters.least_hz / 8000 + filters.low.abs()[:, 0]) * 8000
    high = low + (filters.least_hz / 8000 + filters.band.abs()[:, 0]) * 8000
    for row, (first, last) in enumerate(zip(low.tolist(), high.clamp(max=4000).tolist(), strict=True)):
        gain = response[row] / response[row].max()
        centre = round((first + last) / 2)
        assert gain[centre] > 0.7
        assert gain[max(0, round(first) - 150)] < 0.3 or first < 150
        if last < 3800:
            assert gain[round(last) + 150] < 0.3


def test_a_long_waveform_is_what_its_chunks_are_on_average():
    network = SincNet(3, 8000).eval()
    waveforms = noise(2, 2 * network.chunk)
    half = network.chunk // 2
    pieces = torch.stack([network.features(waveforms[:, k * half : k * half + network.chunk]) for k in range(3)])
    assert torch.allclose(network.features(waveforms), pieces.mean(dim=0), atol=1e-5)


def test_the_end_of_a_waveform_is_heard():
    network = SincNet(3, 8000).eval()
    waveforms = noise(1, 2 * network.chunk + 301)
    changed = waveforms.clone()
    changed[:, -200:] = 0
    assert not torch.allclose(network(waveforms), network(changed))


def test_a_voiceprint_has_length_one_and_is_learned():
    encoder = speaker_encoder(4, SPEC)
    prints = encoder.answer(noise(6, 4000))
    assert torch.allclose(prints.norm(dim=1), torch.ones(6), atol=1e-5)
    assert encoder.task_loss(noise(6, 4000), torch.arange(6) % 4).shape == (6,)


@pytest.mark.parametrize(
    ("builder", "spec", "arguments"),
    [
        (mel_cnn, InputSpec(shape=(1, 8, 8), options={"sampling_rate": 8000}), {}),
        (mel_cnn, InputSpec(shape=(4000,)), {}),
        (mel_cnn, SPEC, {"widht": 3}),
        (sincnet, SPEC, {"taps": 8}),
        (sincnet, InputSpec(shape=(800,), options={"sampling_rate": 8000}), {}),
        (x_vector, InputSpec(shape=(4000,), options={"sampling_rate": 500}), {}),
    ],
)
def test_what_does_not_fit_is_said(builder, spec, arguments):
    with pytest.raises(ModelError):
        builder(3, spec, **arguments)
