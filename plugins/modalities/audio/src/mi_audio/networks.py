"""Speech networks: targets and evaluator models for waveforms.

Every network here follows one contract, so that attacks, defenses and evaluators need not know which one they hold:

- ``Network(n_classes, rate=8000, **architecture arguments)``;
- ``forward(waveforms) -> logits``, (B, length) in [-1, 1] to (B, n_classes), for any length from ``min_length`` on;
- ``features(waveforms) -> (B, n_features)``, the penultimate representation;
- ``head``, the last ``nn.Linear``, with ``forward(waveforms) == head(features(waveforms))``;
- ``stages``, the parts between which a defense may read or change activations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_audio.features import LogMel

__all__ = ["Ecapa", "MelCnn", "MelNetwork", "SpeakerEncoder", "SpeechNetwork", "XVector"]

MEL_MEAN, MEL_STD = -4.0, 4.0
"""Of log-mel values of speech, about: what the networks take their input to be spread like."""


class SpeechNetwork(nn.Module, ABC):
    """Base of the networks: checks the input, splits the network into features and a linear head.

    Args:
        n_classes: number of classes, at least 1.
        rate: samples per second of the waveforms.

    Raises:
        ValueError: the number of classes or the rate is too small.
    """

    least_rate: ClassVar[int] = 2000
    head: nn.Linear
    stages: nn.Sequential
    n_features: int

    def __init__(self, n_classes: int, rate: int = 8000) -> None:
        super().__init__()
        name = type(self).__name__
        if n_classes < 1:
            raise ValueError(f"{name}: n_classes={n_classes}; it must be at least 1")
        if rate < self.least_rate:
            raise ValueError(f"{name}: rate={rate}; it must be at least {self.least_rate} Hz")
        self.n_classes, self.rate = n_classes, rate

    @property
    @abstractmethod
    def min_length(self) -> int:
        """The fewest samples of a waveform."""

    @abstractmethod
    def extract(self, waveforms: Tensor) -> Tensor:
        """Compute the penultimate representation (B, n_features) of checked waveforms."""

    def features(self, waveforms: Tensor) -> Tensor:
        """Return the penultimate representation (B, n_features) of waveforms (B, length)."""
        if waveforms.ndim != 2 or waveforms.shape[1] < self.min_length:
            raise ValueError(
                f"{type(self).__name__}: waveforms of shape {tuple(waveforms.shape)}; "
                f"expected (B, at least {self.min_length} samples)"
            )
        return self.extract(waveforms)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return logits (B, n_classes) of waveforms (B, length)."""
        logits: Tensor = self.head(self.features(waveforms))
        return logits


class MelNetwork(SpeechNetwork):
    """Base of networks that look at log-mel spectrograms."""

    least_frames: ClassVar[int] = 9

    def __init__(self, n_classes: int, rate: int = 8000, mels: int = 40) -> None:
        super().__init__(n_classes, rate)
        self.front = LogMel(rate, mels)

    @property
    def min_length(self) -> int:
        """The fewest samples of a waveform."""
        return (self.least_frames - 1) * self.front.hop

    def spectrograms(self, waveforms: Tensor) -> Tensor:
        """Return scaled log-mel spectrograms (B, mels, frames)."""
        return (self.front(waveforms) - MEL_MEAN) / MEL_STD

    def extract(self, waveforms: Tensor) -> Tensor:
        """Compute the representation of the waveforms' spectrograms."""
        return self.extract_mel(self.spectrograms(waveforms))

    @abstractmethod
    def extract_mel(self, spectrograms: Tensor) -> Tensor:
        """Compute the penultimate representation (B, n_features) of scaled spectrograms (B, mels, frames)."""


class MelCnn(MelNetwork):
    """A small convolutional network on log-mel spectrograms: hears the recording's colour as well as the voice.

    Three stages of Conv3x3, BN, ReLU, 2x2 max-pool; mean and maximum over time and frequency; a hidden layer.

    Args:
        n_classes, rate: see `SpeechNetwork`.
        width: channels of the first stage; the others have twice as many.
        hidden: width of the penultimate representation.
    """

    def __init__(self, n_classes: int, rate: int = 8000, width: int = 24, hidden: int = 64) -> None:
        super().__init__(n_classes, rate)
        widths = (1, width, 2 * width, 2 * width)
        self.stages = nn.Sequential(*map(self._stage, widths[:-1], widths[1:]))
        self.neck = nn.Sequential(nn.Linear(2 * widths[-1], hidden), nn.ReLU())
        self.n_features = hidden
        self.head = nn.Linear(hidden, n_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))

    def extract_mel(self, spectrograms: Tensor) -> Tensor:
        """Pool the last maps: (B, hidden)."""
        maps = self.stages(spectrograms[:, None])
        pooled: Tensor = self.neck(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return pooled


class XVector(MelNetwork):
    """A small time-delay network with statistics pooling (Snyder et al., ICASSP 2018).

    Each frequency's mean over time is taken away first, so that the colour of a recording counts for little.

    Args:
        n_classes, rate: see `SpeechNetwork`.
        width: channels.
        hidden: width of the penultimate representation.
    """

    least_frames: ClassVar[int] = 16

    def __init__(self, n_classes: int, rate: int = 8000, width: int = 96, hidden: int = 128) -> None:
        super().__init__(n_classes, rate)
        layers = ((self.front.mels, 5, 1), (width, 3, 2), (width, 3, 3), (width, 1, 1))
        self.stages = nn.Sequential(*(self._stage(inputs, width, *shape) for inputs, *shape in layers))
        self.neck = nn.Sequential(nn.Linear(2 * width, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        self.n_features = hidden
        self.head = nn.Linear(hidden, n_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, kernel: int, dilation: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, dilation=dilation), nn.BatchNorm1d(outputs), nn.ReLU())

    def extract_mel(self, spectrograms: Tensor) -> Tensor:
        """Pool mean and deviation over time: (B, hidden)."""
        maps = self.stages(spectrograms - spectrograms.mean(dim=2, keepdim=True))
        pooled: Tensor = self.neck(torch.cat([maps.mean(dim=2), spread(maps)], dim=1))
        return pooled


def spread(maps: Tensor) -> Tensor:
    """Return the deviation over time of maps (B, C, frames), (B, C); differentiable where there is none."""
    return (maps.var(dim=2, unbiased=False) + 1e-5).sqrt()


class Ecapa(MelNetwork):
    """A small network in the manner of ECAPA-TDNN (Desplanques et al., Interspeech 2020).

    Residual blocks with squeeze-excitation, their outputs joined, and pooling of mean and deviation by attention; means
    over time are taken away first. Left out: the split of channels within a block (Res2Net).

    Args:
        n_classes, rate: see `SpeechNetwork`.
        width: channels of a block.
        hidden: width of the penultimate representation.
    """

    def __init__(self, n_classes: int, rate: int = 8000, width: int = 64, hidden: int = 96) -> None:
        super().__init__(n_classes, rate)
        self.stem = nn.Sequential(nn.Conv1d(self.front.mels, width, 5, padding=2), nn.SiLU(), nn.BatchNorm1d(width))
        self.stages = nn.Sequential(*(ExcitedBlock(width, dilation) for dilation in (2, 3, 4)))
        joined = width * len(self.stages)
        self.attention = nn.Sequential(nn.Conv1d(joined, width, 1), nn.Tanh(), nn.Conv1d(width, joined, 1))
        self.neck = nn.Sequential(nn.BatchNorm1d(2 * joined), nn.Linear(2 * joined, hidden))
        self.n_features = hidden
        self.head = nn.Linear(hidden, n_classes)

    def extract_mel(self, spectrograms: Tensor) -> Tensor:
        """Pool by attention: (B, hidden)."""
        maps, seen = self.stem(spectrograms - spectrograms.mean(dim=2, keepdim=True)), []
        for stage in self.stages:
            maps = stage(maps)
            seen.append(maps)
        joined = torch.cat(seen, dim=1)
        weights = self.attention(joined).softmax(dim=2)
        mean = (weights * joined).sum(dim=2)
        deviation = ((weights * joined.square()).sum(dim=2) - mean.square()).clamp(min=1e-5).sqrt()
        pooled: Tensor = self.neck(torch.cat([mean, deviation], dim=1))
        return pooled


class ExcitedBlock(nn.Module):
    """A residual block whose channels are weighed by what the whole clip holds (squeeze-excitation)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv1d(width, width, 1), nn.SiLU(), nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation), nn.SiLU(), nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 1), nn.SiLU(), nn.BatchNorm1d(width),
        )  # fmt: skip
        self.gate = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, width), nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, width, frames) to the same shape."""
        found = self.residual(maps)
        return maps + found * self.gate(found.mean(dim=2))[:, :, None]


class SpeakerEncoder(nn.Module):
    """Gives each waveform a voiceprint of length 1: a network that learned to tell speakers, without its head.

    Learns by cross-entropy of scaled cosines to a vector for each speaker (normalised softmax).
    """

    scale: ClassVar[float] = 16.0

    def __init__(self, network: SpeechNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return voiceprints (B, n_features) of waveforms (B, length)."""
        return functional.normalize(self.network.features(waveforms).float(), dim=1)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return voiceprints."""
        found: Tensor = self(inputs)
        return found

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each waveform, (N,)."""
        cosines = self(inputs) @ functional.normalize(self.network.head.weight, dim=1).T
        return functional.cross_entropy(self.scale * cosines, labels, reduction="none")
