"""From the log-mel spectrograms of a prior to waveforms: with gradients for a search, as well as can be for the rest.

A spectrogram that a network made is that of no waveform: rendering changes it, and what a target says of it. Searches
therefore ask the target about waveforms, made with the phases of a few iterations of Griffin and Lim's, which the
gradient takes for given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from mi_audio.adapter import RATE
from mi_audio.features import FLOOR, LogMel
from micore.errors import ConfigError, DataError
from micore.runtime import Runtime

__all__ = ["Renderer", "Scale", "Vocoder", "find_vocoder"]

Vocoder = Callable[[Tensor, int], Tensor]
"""Log-mel spectrograms (B, mels, frames) of `LogMel` at 16 kHz, and a length, to waveforms (B, length) in [-1, 1]."""

BATCH = 256
_SILENT = 1e-8
"""Least linear power: below it the square root's gradient grows without bound."""


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of each mel band of public speech, (mels, 1) each."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, spectrograms: Tensor) -> Scale:
        """Measure spectrograms (N, mels, frames)."""
        mean = spectrograms.mean(dim=(0, 2))[:, None]
        return cls(mean, spectrograms.std(dim=(0, 2)).clamp(min=0.1)[:, None])

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], runtime: Runtime) -> Scale:
        """Return what `state` gave, on the run's device."""
        return cls(state["mean"].to(runtime.device), state["deviation"].to(runtime.device))

    def state(self) -> dict[str, Tensor]:
        """Return plain data."""
        return {"mean": self.mean, "deviation": self.deviation}

    def scaled(self, spectrograms: Tensor) -> Tensor:
        """Return spectrograms as networks take them."""
        return (spectrograms - self.mean) / self.deviation

    def unscaled(self, spectrograms: Tensor) -> Tensor:
        """Return log-mel values of what a network made, within what public speech has."""
        return spectrograms.float().clamp(-5, 5) * self.deviation + self.mean


class Renderer:
    """Waveforms of ``length`` samples to log-mel spectrograms of ``mels`` bands, and back.

    iterations: of Griffin and Lim's, for waveforms that are given away. vocoder: takes their place. quick: iterations
    for the phases that a search takes for given.
    """

    def __init__(
        self, length: int, mels: int, runtime: Runtime, *, iterations: int = 32, quick: int = 3,
        vocoder: Vocoder | None = None,
    ) -> None:  # fmt: skip
        self.front = runtime.place(LogMel(RATE, mels))
        if length < self.front.n_fft:
            raise DataError(f"clips of {length} samples are too short: a window has {self.front.n_fft}")
        self.length, self.iterations, self.quick, self._vocoder = length, iterations, quick, vocoder

    @property
    def shape(self) -> tuple[int, int]:
        """The bands and frames of a spectrogram."""
        return self.front.mels, self.front.frames(self.length)

    @torch.no_grad()
    def analysed(self, waveforms: Tensor) -> Tensor:
        """Return the spectrograms (N, mels, frames) of waveforms (N, length)."""
        return torch.cat([self.front(part) for part in waveforms.split(BATCH)])

    @torch.no_grad()
    def rendered(self, spectrograms: Tensor) -> Tensor:
        """Return waveforms (B, length) in [-1, 1].

        Raises: DataError when a vocoder gives another shape.
        """
        if self._vocoder is None:
            return self.front.rendered(spectrograms, self.length, self.iterations)
        found = self._vocoder(spectrograms, self.length)
        if tuple(found.shape) != (len(spectrograms), self.length):
            wanted = (len(spectrograms), self.length)
            raise DataError(f"the vocoder gave waveforms of shape {tuple(found.shape)}, not {wanted}")
        return found.float().clamp(-1, 1)

    def searched(self, spectrograms: Tensor) -> Tensor:
        """Return rougher waveforms (B, length), differentiable in the spectrograms; the phases are taken for given."""
        with torch.autocast(spectrograms.device.type, enabled=False):  # of sixteen bits a spectrum is noise
            return self._searched(spectrograms.float())

    def _searched(self, spectrograms: Tensor) -> Tensor:
        front, window = self.front, self.front.window
        with torch.no_grad():
            rough = front.rendered(spectrograms, self.length, self.quick)
            spectra = torch.stft(rough, front.n_fft, front.hop, window=window, pad_mode="constant", return_complex=True)
            phases = spectra / spectra.abs().clamp(min=1e-9)
        mel = (spectrograms.exp() - FLOOR).clamp(min=0)
        amplitude = (front.inverse.T @ mel).clamp(min=_SILENT).sqrt()
        found = torch.istft(amplitude * phases, front.n_fft, front.hop, window=window, length=self.length)
        return found / found.detach().abs().amax(dim=1, keepdim=True).clamp(min=1.0)


def find_vocoder(name: str | None) -> Vocoder | None:
    """Return the function that ``package.module:function`` names, None for none.

    Raises: ConfigError when it cannot be imported.
    """
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"vocoder {name!r} cannot be imported: {error}", hint="package.module:function") from error
    if not callable(found):
        raise ConfigError(f"vocoder {name!r} is no function", hint="package.module:function")
    vocoder: Vocoder = found
    return vocoder
