"""Classifiers of audio: from waveforms to logits, with the checkpoint's own feature extractor inside, differentiable.

Two kinds of extractors are known: that of networks on raw waveforms (wav2vec 2.0, HuBERT, WavLM...), which brings a
clip to mean 0 and variance 1, and that of the Audio Spectrogram Transformer, log-mel spectrograms as Kaldi makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

from mi_model_transformers.settings import read_settings, save_it, settings_file
from micore.contracts import Dataset
from micore.errors import ModelError
from micore.inputs import InputSpec

RATE = "sampling_rate"
EXTRACTOR = "feature extractor"
RAW, SPECTROGRAM = "Wav2Vec2FeatureExtractor", "ASTFeatureExtractor"
LEAST_VARIANCE = 1e-7
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
LEAST_POWER = 1.192092955078125e-07


class AudioClassifier(nn.Module):
    """A transformer that gives logits of classes for waveforms (N, length) in [-1, 1] at its own rate.

    network: a transformers model with ``logits`` of ``input_values``; front: its feature extractor; order: the place of
    each class among its own.
    """

    comes_trained = True

    def __init__(self, network: Any, front: nn.Module, own_input: InputSpec, order: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.front = front
        self.own_input = own_input
        self.order = tuple(order)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        logits: Tensor = self.network(input_values=self.front(waveforms)).logits.float()
        return logits[:, torch.tensor(self.order, device=logits.device)]


class RawFront(nn.Module):
    """What ``Wav2Vec2FeatureExtractor`` does to clips of one length."""

    def __init__(self, *, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return waveforms (N, length), each of mean 0 and variance 1 where that is asked for."""
        if not self.normalise:
            return waveforms
        centred = waveforms - waveforms.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + LEAST_VARIANCE).sqrt()


class KaldiFront(nn.Module):
    """What ``ASTFeatureExtractor`` does: Kaldi's log-mel spectrograms, cut or filled up to so many frames.

    Windows of 25 ms every 10 ms (Hann), each without its mean and with the higher frequencies raised; triangles of the
    mel scale from 20 Hz to half the rate; the logarithm of power.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, rate: int, mels: int, frames: int, mean: float, std: float) -> None:
        super().__init__()
        self.length, self.hop, self.frames = int(0.025 * rate), int(0.01 * rate), frames
        self.mean, self.scale = mean, 2 * std
        self.n_fft = 1 << (self.length - 1).bit_length()
        self.register_buffer("window", torch.hann_window(self.length, periodic=False), persistent=False)
        self.register_buffer("filters", kaldi_filters(rate, mels, self.n_fft), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return spectrograms (N, frames, mels)."""
        cut = waveforms.unfold(1, self.length, self.hop)
        cut = cut - cut.mean(dim=2, keepdim=True)
        before = torch.cat([cut[:, :, :1], cut[:, :, :-1]], dim=2)
        spectrum = torch.fft.rfft((cut - PREEMPHASIS * before) * self.window, n=self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        levels = (power @ self.filters).clamp(min=LEAST_POWER).log()[:, : self.frames]
        whole = functional.pad(levels, (0, 0, 0, self.frames - levels.shape[1]))
        return (whole - self.mean) / self.scale


def kaldi_filters(rate: int, mels: int, n_fft: int) -> Tensor:
    """Return triangles (n_fft / 2 + 1, mels) that are straight on the mel scale ``1127 ln(1 + f / 700)``."""
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    scale = 1127 * (1 + bins / 700).log()
    ends = 1127 * (1 + torch.tensor([LOWEST_HZ, rate / 2], dtype=torch.float64) / 700).log()
    edges = torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64)
    rising = (scale[:, None] - edges[:-2]) / edges.diff()[:-1]
    falling = (edges[2:] - scale[:, None]) / edges.diff()[1:]
    filters = torch.minimum(rising, falling).clamp(min=0).float()
    filters[-1] = 0  # Kaldi leaves the highest frequency out
    return filters


def is_audio(about: Any) -> bool:
    """Tell whether a checkpoint's configuration is of a network that can classify audio."""
    return about.model_type in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES


def read_front(folder: Path) -> tuple[nn.Module, int]:
    """Return a checkpoint's feature extractor, and the samples per second that it takes.

    Raises: ModelError when its settings are not there, name no rate, or are of a kind that is not supported.
    """
    settings = read_settings(audio_settings_file(folder), "feature_extractor", EXTRACTOR)
    rate, kind = settings.get(RATE), settings.get("feature_extractor_type")
    if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
        raise ModelError(
            f"the feature extractor of {folder} names no {RATE} in Hz, but {rate!r}", hint=save_it(EXTRACTOR)
        )
    if kind == RAW:
        return RawFront(normalise=bool(settings.get("do_normalize", True))), rate
    if kind == SPECTROGRAM:
        return _kaldi_front(folder, settings, rate), rate
    raise ModelError(
        f"the feature extractor of {folder} is {kind or 'of no named type'}, which is not supported",
        hint=f"{RAW} or {SPECTROGRAM}",
    )


def _kaldi_front(folder: Path, settings: Mapping[str, Any], rate: int) -> KaldiFront:
    normalised = settings.get("do_normalize", True)
    try:
        return KaldiFront(
            rate, int(settings["num_mel_bins"]), int(settings["max_length"]),
            float(settings["mean"]) if normalised else 0.0, float(settings["std"]) if normalised else 0.5,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the feature extractor of {folder} is not whole: {error}", hint=save_it(EXTRACTOR)) from error


def audio_settings_file(folder: Path) -> Path:
    """Return the file with the feature extractor's settings.

    Raises: ModelError when there is none.
    """
    return settings_file(folder, "sound", EXTRACTOR)


def audio_input(rate: int, dataset: Dataset | None, seconds: float | None) -> InputSpec:
    """Describe the input of a network at a rate: clips as long as asked for, or as those of the data, or of 1 s.

    Raises: ModelError for data whose rate is not known.
    """
    if seconds is None and dataset is not None:
        given = dataset.input.options.get(RATE)
        if not isinstance(given, int) or len(dataset.input.shape) != 1:
            raise ModelError(f"data set {dataset.name} does not say how long its clips are", hint="-M seconds=...")
        length = -(-dataset.input.shape[0] * rate // given)
    else:
        length = max(1, round((1.0 if seconds is None else seconds) * rate))
    return InputSpec(shape=(length,), options={RATE: rate})
