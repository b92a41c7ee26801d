"""Small planted problems of audio, on which the checks of attacks, defenses and evaluators run.

Each class hums at two pitches of its own; public clips hum anywhere. A judge compares spectra with the classes' own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.adapter import RATE
from mi_audio.builders import mel_cnn, speaker_encoder, x_vector
from mi_audio.cases import row_of
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.features import LogMel
from mi_audio.splits import AudioSplit, quantised
from micore.artifacts import PluginUse
from micore.inputs import InputSpec
from micore.runtime import Random, derive_seed
from micore.testing.setting import TOY_TRAINING, ToySetting, tensor_problem
from micore.testing.toys import contrast

N_CLASSES = 4
LENGTH = 4800
"""Samples of a clip: 0.3 seconds."""
LOWEST_HZ, HIGHEST_HZ = 250.0, 6000.0
PER_CLASS = 32
MODEL_RATE = 8000


def toys() -> list[ToySetting]:
    """Return the problems of goals ``class`` and ``instance``."""
    return [_classes(), _instances()]


def _classes() -> ToySetting:
    dataset = _dataset("toy-hums")
    return ToySetting(
        modality="audio", dataset=dataset, model=PluginUse(name="mel-cnn", config={"width": 12}), build=mel_cnn,
        judge_model=PluginUse(name="x-vector", config={"width": 32}), judge_build=x_vector, training=TOY_TRAINING,
        judge=lambda case, waveforms: _contrast(waveforms, case.label or 0), problem=problem, noise=_noise,
        inputs=(dataset.input, InputSpec(shape=(RATE,), options={"sampling_rate": RATE})),
    )  # fmt: skip


def _instances() -> ToySetting:
    """Return the problem of goal ``instance``: the hum behind a voiceprint."""
    dataset = _dataset("toy-hums")
    labels = dataset.private.labels
    return ToySetting(
        modality="audio", goals=("instance",), role="encoder", dataset=dataset,
        model=PluginUse(name="speaker-encoder", config={"width": 32, "hidden": 32}), build=speaker_encoder,
        judge_model=PluginUse(name="mel-cnn", config={"width": 8}), judge_build=mel_cnn, training=TOY_TRAINING,
        judge=lambda case, waveforms: _contrast(waveforms, 0 if labels is None else int(labels[row_of(case)])),
        problem=problem, noise=_noise, inputs=(dataset.input,),
    )  # fmt: skip


def problem(samples: object) -> str | None:
    """Tell what is wrong with samples that should be waveforms."""
    return tensor_problem(samples, None, -1.0, 1.0)


def _dataset(name: str) -> AudioDataset:
    return AudioDataset(
        name=name, classes=tuple(f"hum-{label}" for label in range(N_CLASSES)), private=_own(PER_CLASS, "private"),
        holdout=_own(8, "holdout"), public=AudioSplit(quantised(_hums(_pitches(_anywhere(160)), _rng("public")))),
        rate=MODEL_RATE, others=_own(PER_CLASS, "others", turn=0.5),
        other_classes=tuple(f"other-{label}" for label in range(N_CLASSES)),
    )  # fmt: skip


def _own(per_class: int, purpose: str, turn: float = 0.0) -> AudioSplit:
    labels = torch.arange(N_CLASSES).repeat_interleave(per_class)
    places = (labels + turn + 0.25) / N_CLASSES
    return AudioSplit(quantised(_hums(_pitches(places), _rng(purpose))), labels)


def _anywhere(n: int) -> Tensor:
    return _rng("places").uniform((n,))


def _pitches(places: Tensor) -> Tensor:
    """Return two pitches in Hz, (N, 2), for places (N,) from 0 to 1.25."""
    span = math.log(HIGHEST_HZ / LOWEST_HZ)
    both = torch.stack([places, (places + 0.5) % 1.0], dim=1)
    return torch.as_tensor(LOWEST_HZ * (span * (0.6 * both + torch.tensor([0.0, 0.35]))).exp())


def _hums(pitches: Tensor, rng: Random) -> Tensor:
    """Return hums (N, LENGTH) of two pitches each: moved a little, swelling, with noise."""
    n = len(pitches)
    moved = pitches * (1 + 0.02 * rng.normal((n, 2)))
    times = torch.arange(LENGTH) / RATE
    tones = (2 * math.pi * (moved[:, :, None] * times + rng.uniform((n, 2, 1)))).sin().sum(dim=1)
    swell = 0.6 + 0.4 * (2 * math.pi * (3 * times + rng.uniform((n, 1)))).sin()
    return (0.25 * swell * tones + 0.005 * rng.normal((n, LENGTH))).clamp(-1, 1)


def _looks(waveforms: Tensor) -> Tensor:
    """Return how the loudness of waveforms is spread over the mel scale, (N, 40)."""
    mel = LogMel(RATE)(waveforms.detach().cpu().float())
    return functional.avg_pool1d(mel.exp().mean(dim=2).add(1e-3).log()[:, None], 3, stride=1, padding=1)[:, 0]


def _contrast(waveforms: Tensor, label: int) -> Tensor:
    """Judge waveforms (n, length): likeness to the class's spectrum above that to the others'."""
    places = (torch.arange(N_CLASSES) + 0.25) / N_CLASSES
    templates = _looks(_hums(_pitches(places), _rng("templates")))
    return contrast(_looks(waveforms).double(), templates.double(), label)


def _noise(n: int, rng: Random) -> Tensor:
    return (0.1 * rng.normal((n, LENGTH))).clamp(-1, 1)


def _rng(purpose: str) -> Random:
    return Random(derive_seed("toy-hums", purpose))
