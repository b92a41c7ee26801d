"""What is searched: a waveform, a log-mel spectrogram, or the curve of an equaliser for a public clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import resample

from mi_audio.adapter import RATE, AudioAdapter
from mi_audio.features import FLOOR, LOUDEST, LogMel
from mi_audio.waveform_search import Views, canonical_length, equalised, excess, roughness, variation
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.projections import clamp_box

CURVE_BANDS = 32
"""Of the equaliser."""

Rows = Mapping[str, Tensor]
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the penalties; 0 leaves one out.

    smoothness: differences of neighbouring samples, total variation of spectrograms, or roughness of curves; energy:
    loudness above ``level``; mean_mel: squared distance from the mean spectrogram of public clips; size: of curves.
    """

    smoothness: float = 0.0
    energy: float = 0.0
    level: float = 0.1
    mean_mel: float = 0.0
    size: float = 0.0


class Domain(Protocol):
    """What a search moves, and how the target sees it."""

    def begun(self, waveforms: Tensor) -> Tensor:
        """Return the values (N, ...) of waveforms (N, length) that a search begins with."""

    def logits(self, values: Tensor, rows: Rows, numbers: Tensor) -> Tensor:
        """Ask the target about values; numbers (B, P) say how they are changed before."""

    def penalty(self, values: Tensor, rows: Rows) -> Tensor:
        """Return the penalties of values, (B,)."""

    def constrained(self, values: Tensor, starts: Tensor) -> Tensor:
        """Bring values back to where they may lie."""

    def waveforms(self, values: Tensor, rows: Rows) -> Tensor:
        """Return the waveforms (B, length) of values, without gradients."""


@dataclass(frozen=True, kw_only=True)
class WaveformDomain:
    """The samples themselves, in [-1, 1]."""

    network: Network
    views: Views
    weights: Weights
    mel: LogMel
    mean_mel: Tensor

    def begun(self, waveforms: Tensor) -> Tensor:
        """Return the waveforms."""
        return waveforms

    def logits(self, values: Tensor, rows: Rows, numbers: Tensor) -> Tensor:
        """Ask about changed waveforms."""
        return self.network(self.views(values, numbers))

    def penalty(self, values: Tensor, rows: Rows) -> Tensor:
        """Return smoothness, energy, and distance from the mean spectrogram."""
        weights = self.weights
        found = weights.smoothness * roughness(values) + weights.energy * excess(values, weights.level)
        return found + weights.mean_mel * distance(self.mel(values), self.mean_mel) if weights.mean_mel else found

    def constrained(self, values: Tensor, starts: Tensor) -> Tensor:
        """Clip."""
        return clamp_box(values, -1.0, 1.0)

    def waveforms(self, values: Tensor, rows: Rows) -> Tensor:
        """Return the samples."""
        return values.detach()


@dataclass(frozen=True, kw_only=True)
class EqualiserDomain:
    """Log gains (bands,) for the public clip of each row: what is said stays natural speech."""

    network: Network
    views: Views
    weights: Weights

    def begun(self, waveforms: Tensor) -> Tensor:
        """Return flat curves."""
        return waveforms.new_zeros(len(waveforms), CURVE_BANDS)

    def logits(self, values: Tensor, rows: Rows, numbers: Tensor) -> Tensor:
        """Ask about changed, filtered clips."""
        return self.network(self.views(filtered(rows["clips"], values), numbers))

    def penalty(self, values: Tensor, rows: Rows) -> Tensor:
        """Return size, roughness and energy."""
        weights = self.weights
        size, bent = values.square().mean(dim=1), values.diff(dim=1).square().mean(dim=1)
        found = weights.size * size + weights.smoothness * bent
        return found + weights.energy * excess(filtered(rows["clips"], values), weights.level)

    def constrained(self, values: Tensor, starts: Tensor) -> Tensor:
        """Leave curves as they are."""
        return values

    def waveforms(self, values: Tensor, rows: Rows) -> Tensor:
        """Return filtered clips."""
        return filtered(rows["clips"], values.detach())


@dataclass(frozen=True, kw_only=True)
class MelDomain:
    """The log-mel spectrogram (mels, frames) that the target's network looks at, between silence and full loudness.

    The network sees the values in place of the spectrogram that its own front computes; waveforms are rendered
    afterwards, and that loses much of what the target believed.
    """

    network: Network
    front: LogMel
    spec: InputSpec
    weights: Weights
    mean_mel: Tensor
    iterations: int

    def begun(self, waveforms: Tensor) -> Tensor:
        """Return the spectrograms of waveforms."""
        return self.constrained(self.front(AudioAdapter(self.spec)(waveforms)), waveforms)

    def logits(self, values: Tensor, rows: Rows, numbers: Tensor) -> Tensor:
        """Ask about spectrograms."""
        with seen(self.front, values):
            return self.network(values.new_zeros(len(values), canonical_length(self.spec)))

    def penalty(self, values: Tensor, rows: Rows) -> Tensor:
        """Return total variation, and distance from the mean spectrogram."""
        return self.weights.smoothness * variation(values) + self.weights.mean_mel * distance(values, self.mean_mel)

    def constrained(self, values: Tensor, starts: Tensor) -> Tensor:
        """Clamp."""
        return clamp_box(values, math.log(FLOOR), math.log(LOUDEST))

    def waveforms(self, values: Tensor, rows: Rows) -> Tensor:
        """Render."""
        found = self.front.rendered(values.detach(), self.spec.shape[0], self.iterations)
        length = canonical_length(self.spec)
        own = found if self.front.rate == RATE else resample(found, self.front.rate, RATE)
        return functional.pad(own, (0, max(0, length - own.shape[1])))[:, :length].clamp(-1, 1)


Searched = WaveformDomain | EqualiserDomain | MelDomain
"""The domains that there are."""


def filtered(clips: Tensor, log_gains: Tensor) -> Tensor:
    """Filter clips (N, length) by curves; as loud as before at most up to full scale, without clipping."""
    found = equalised(clips, log_gains)
    return found / found.abs().amax(dim=1, keepdim=True).clamp(min=1.0)


def distance(spectrograms: Tensor, mean: Tensor) -> Tensor:
    """Return the mean squared distance of spectrograms (N, mels, frames) from a mean one (mels,), (N,)."""
    return (spectrograms - mean[:, None]).square().mean(dim=(1, 2))


def front_of(inner: nn.Module) -> LogMel:
    """Return the part of a network that computes log-mel spectrograms.

    Raises: ModelError when there is not exactly one.
    """
    fronts = [module for module in inner.modules() if isinstance(module, LogMel)]
    if len(fronts) != 1:
        raise ModelError(
            f"domain=mel needs a network that looks at log-mel spectrograms; this one has {len(fronts)} such parts",
            hint="-p domain=waveform works with every network",
        )
    return fronts[0]


@contextmanager
def seen(front: LogMel, spectrograms: Tensor) -> Iterator[None]:
    """Let a network see spectrograms (B, mels, frames) instead of those of its waveforms."""
    handle = front.register_forward_hook(lambda module, inputs, output: spectrograms)
    try:
        yield
    finally:
        handle.remove()


def mean_of(mel: Callable[[Tensor], Tensor], clips: Tensor, batch: int = 64) -> Tensor:
    """Return the mean log-mel values of clips over time and clips, (mels,)."""
    return torch.cat([mel(part).mean(dim=2) for part in clips.split(batch)]).mean(dim=0)
