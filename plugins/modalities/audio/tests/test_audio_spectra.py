"""Long-term spectra: taken away, and put on noise."""

from __future__ import annotations

import pytest
import torch

from mi_audio.adapter import RATE, AudioAdapter
from mi_audio.controls import MEAN, NOISE, ORACLE, OTHERS, class_controls
from mi_audio.datasets.voices import open_voices
from mi_audio.spectra import long_term, shaped_noise, whitened
from micore.contracts import Case, Reconstruction
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.runtime import Random

SMALL = {"speakers": 3, "clips": 6, "held": 2, "others": 4, "other_clips": 4, "seconds": 0.5}


@pytest.fixture(scope="module")
def voices():
    return open_voices(None, **SMALL)


def flatness(waveforms: torch.Tensor) -> torch.Tensor:
    """Return the spread of the long-term spectrum in decibels, (N,)."""
    return (20 * long_term(waveforms)[:, 4:-4].clamp(min=1e-9).log10()).std(dim=1)


def test_whitened_clips_have_no_colour_and_keep_their_loudness(voices):
    clips = voices.private.take(range(6))
    white = whitened(clips)
    assert float((flatness(white) / flatness(clips)).max()) < 0.35
    loud, as_loud = (part.square().mean(dim=1).sqrt() for part in (clips, white))
    assert torch.allclose(loud, as_loud, rtol=0.1)


def test_noise_takes_the_spectrum_that_it_is_given(voices):
    spectra = long_term(voices.private.take([0, 10]))
    noise = shaped_noise(spectra, 8000, Random(1))
    found = long_term(noise)
    unit = [part.log() - part.log().mean(dim=1, keepdim=True) for part in (spectra, found)]
    cosine = torch.nn.functional.cosine_similarity(*unit)
    crossed = torch.nn.functional.cosine_similarity(unit[0], unit[1].flip(0))
    assert float(cosine.min()) > 0.95
    assert bool((cosine > crossed).all())


def test_controls_are_as_many_as_the_attack_gave(voices):
    items = [
        Reconstruction(case=Case(id=f"class-{label}", goal="class", label=label), samples=torch.zeros(n, 8000),
                       scores=torch.zeros(n))
        for label, n in ((0, 2), (2, 1))
    ]  # fmt: skip
    found = class_controls(items, voices)
    assert set(found) == {NOISE, OTHERS, MEAN, ORACLE}
    for parts in found.values():
        assert [part.samples.shape for part in parts] == [(2, 8000), (1, 8000)]
        assert all(float(part.samples.abs().max()) <= 1 for part in parts)
    again = class_controls(items[1:], voices)
    assert torch.equal(found[ORACLE][1].samples, again[ORACLE][0].samples)
    own = long_term(found[ORACLE][0].samples).log().mean(dim=0)
    spectra = [long_term(voices.private.of(label).take(range(6))).square().mean(dim=0).log() / 2 for label in range(3)]
    likeness = [float(torch.corrcoef(torch.stack([own, spectrum]))[0, 1]) for spectrum in spectra]
    assert max(likeness) == likeness[0]


def test_a_model_is_given_its_own_rate():
    tone = (2 * torch.pi * 440 * torch.arange(RATE) / RATE).sin()[None]
    slow = AudioAdapter(InputSpec(shape=(8000,), options={"sampling_rate": 8000}))(tone)
    assert slow.shape == (1, 8000)
    wanted = (2 * torch.pi * 440 * torch.arange(8000) / 8000).sin()
    assert torch.allclose(slow[0, 100:-100], wanted[100:-100], atol=0.02)
    assert AudioAdapter(InputSpec(shape=(RATE,), options={"sampling_rate": RATE}))(tone) is tone


@pytest.mark.parametrize(
    "spec", [InputSpec(shape=(3, 8), options={"sampling_rate": 8000}), InputSpec(shape=(8000,)),
             InputSpec(shape=(8000,), options={"sampling_rate": 0})],
)  # fmt: skip
def test_other_inputs_are_refused(spec):
    with pytest.raises(ModelError):
        AudioAdapter(spec)


def test_samples_that_are_no_waveforms_are_refused():
    with pytest.raises(ModelError, match="waveforms must be"):
        AudioAdapter(InputSpec(shape=(8000,), options={"sampling_rate": 8000}))(torch.zeros(2, 1, 8000))
