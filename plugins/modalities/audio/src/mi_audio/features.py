"""Log-mel spectrograms of waveforms, and waveforms of log-mel spectrograms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import griffinlim, melscale_fbanks

FLOOR = 1e-5
"""Added to mel power before the logarithm: quieter is silence."""

LOUDEST = 300.0
"""Mel power of the loudest sound of full scale, about."""


class LogMel(nn.Module):
    """Turn waveforms (B, length) into log-mel spectrograms (B, mels, frames), and back.

    Windows of 32 ms every 10 ms (Hann), power, ``mels`` triangles of the HTK scale from 0 Hz to half the rate, natural
    logarithm. A power of two of samples: 256 at 8 kHz, 512 at 16 kHz. The shape of a clip of ``length`` samples is
    `frames`.
    """

    window: Tensor
    filters: Tensor
    inverse: Tensor

    def __init__(self, rate: int, mels: int = 40) -> None:
        super().__init__()
        self.rate, self.mels = rate, mels
        self.n_fft = 2 ** round(math.log2(0.032 * rate))
        self.hop = rate // 100
        filters = melscale_fbanks(self.n_fft // 2 + 1, 0.0, rate / 2, mels, rate, mel_scale="htk")
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters.double()).float(), persistent=False)

    def frames(self, length: int) -> int:
        """Return the frames of a clip of so many samples."""
        return length // self.hop + 1

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power spectrogram (B, n_fft / 2 + 1, frames)."""
        # frames by unfold, not torch.stft: its gradient adds up in an order that changes on accelerators
        margin = self.n_fft // 2
        frames = functional.pad(waveforms.float(), (margin, margin)).unfold(1, self.n_fft, self.hop)
        spectrum = torch.fft.rfft(frames * self.window).transpose(1, 2)
        return spectrum.real.square() + spectrum.imag.square()

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return log-mel spectrograms (B, mels, frames), float32."""
        mel = self.filters.T @ self.power(waveforms)
        return (mel + FLOOR).log()

    def rendered(self, spectrograms: Tensor, length: int, iterations: int = 32) -> Tensor:
        """Return waveforms (B, length) in [-1, 1] whose spectrograms come near to these (B, mels, frames).

        Linear power by the filters' pseudo-inverse, phases by Griffin and Lim's iteration (1984) with the momentum of
        Perraudin et al. (2013); begun with phase 0, so that nothing is random. Loudness is kept up to clipping.
        """
        mel = (spectrograms.float().exp() - FLOOR).clamp(min=0)
        power = (self.inverse.T @ mel).clamp(min=0)
        waveforms = griffinlim(
            power, self.window, self.n_fft, self.hop, self.n_fft, power=2.0, n_iter=iterations, momentum=0.99,
            length=length, rand_init=False,
        )  # fmt: skip
        peaks = waveforms.abs().amax(dim=1, keepdim=True)
        return waveforms / peaks.clamp(min=1.0)
