"""Long-term spectra of speech: what a microphone and a room add, and part of what a voice is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.adapter import RATE
from micore.runtime import Random

HOP = RATE // 100

BANDS = 32
"""Into which a long-term spectrum is smoothed: finer than a microphone's curve, coarser than harmonics."""

QUIET = 1e-4
"""Of the highest band of a long-term spectrum: a whitened clip is not raised further where it holds nothing."""


def stft(waveforms: Tensor) -> Tensor:
    """Return the complex spectrogram of waveforms (N, length), (N, bins, frames): 40 ms every 10 ms."""
    window = torch.hann_window(4 * HOP, device=waveforms.device)
    return torch.stft(waveforms, 4 * HOP, HOP, window=window, pad_mode="constant", return_complex=True)


def istft(spectra: Tensor, length: int) -> Tensor:
    """Return the waveforms (N, length) of complex spectrograms."""
    window = torch.hann_window(4 * HOP, device=spectra.device)
    return torch.istft(spectra, 4 * HOP, HOP, window=window, length=length)


def long_term(waveforms: Tensor) -> Tensor:
    """Return the smoothed long-term amplitude spectrum of each waveform, (N, bins)."""
    power = stft(waveforms).abs().square().mean(dim=2)
    coarse = functional.interpolate(power[:, None], size=BANDS, mode="area")
    smooth = functional.interpolate(coarse, size=power.shape[1], mode="linear", align_corners=False)[:, 0]
    return smooth.sqrt()


def whitened(waveforms: Tensor) -> Tensor:
    """Divide waveforms (N, length) by their smoothed long-term spectra; their loudness stays."""
    spectra = long_term(waveforms)
    least = QUIET * spectra.amax(dim=1, keepdim=True)
    flat = istft(stft(waveforms) / spectra.clamp(min=least).clamp(min=1e-9)[:, :, None], waveforms.shape[1])
    return _as_loud(flat, waveforms)


def shaped_noise(spectra: Tensor, length: int, rng: Random) -> Tensor:
    """Return noise (N, length) with long-term amplitude spectra (N, bins), of an effective value of 0.1."""
    noise = rng.normal((len(spectra), length)).to(spectra.device)
    found = istft(stft(noise) * spectra[:, :, None], length)
    level: Tensor = found.square().mean(dim=1, keepdim=True).sqrt()
    return (0.1 * found / level.clamp(min=1e-9)).clamp(-1, 1)


def _as_loud(waveforms: Tensor, others: Tensor) -> Tensor:
    """Scale waveforms to the effective value of others, within [-1, 1]."""
    own, wanted = (part.square().mean(dim=1, keepdim=True).sqrt() for part in (waveforms, others))
    return (waveforms * wanted / own.clamp(min=1e-9)).clamp(-1, 1)
