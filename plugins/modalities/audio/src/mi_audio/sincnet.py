"""SincNet: a network on the waveform itself, by chunks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_audio.networks import SpeechNetwork

__all__ = ["SincFilters", "SincNet"]


class SincNet(SpeechNetwork):
    """SincNet (Ravanelli & Bengio, SLT 2018): band-pass filters on the waveform, then convolutions, by chunks.

    A chunk of 200 ms passes the filters, whose edges are learned, absolute values and pooling, two convolutions and
    dense layers. A longer waveform is what its chunks are on average, one every half chunk; in training one chunk at a
    random place stands for it.

    Fidelity notes (paper / here)
    - The posteriors of chunks are summed / the penultimate layers of chunks are averaged, so that the head stays last.
    - 80 filters of 251 taps, 60 and 60 channels, three layers of 2,048 / 40, 48 and 48, two of 256; arguments set it.
    - LayerNorm over channels and time with weights for each place / one weight for each channel; the same for each
      length.
    - Batch normalisation in the dense layers: as there.

    Args:
        n_classes, rate: see `SpeechNetwork`.
        filters, taps: of the first layer; taps must be odd.
        width, kernel: channels and taps of the two convolutions.
        hidden: width of the dense layers.
        layers: how many of them.
        chunk_s: seconds of a chunk.
    """

    def __init__(
        self, n_classes: int, rate: int = 8000, filters: int = 40, taps: int = 129, width: int = 48, kernel: int = 5,
        hidden: int = 256, layers: int = 2, chunk_s: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__(n_classes, rate)
        if taps % 2 == 0:
            raise ValueError(f"SincNet: taps={taps} must be odd")
        self.chunk = round(chunk_s * rate)
        self.stages = nn.Sequential(
            nn.Sequential(SincFilters(filters, taps, rate), Absolute(), nn.MaxPool1d(3), nn.GroupNorm(1, filters),
                          nn.LeakyReLU(0.2)),
            self._stage(filters, width, kernel), self._stage(width, width, kernel),
        )  # fmt: skip
        self.dense = self._dense(width * self._frames(taps, kernel), hidden, layers)
        self.n_features = hidden
        self.head = nn.Linear(hidden, n_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel), nn.MaxPool1d(3), nn.GroupNorm(1, outputs), nn.LeakyReLU(0.2)
        )

    @staticmethod
    def _dense(inputs: int, hidden: int, layers: int) -> nn.Sequential:
        widths = [inputs, *([hidden] * layers)]
        parts: list[nn.Module] = [nn.LayerNorm(inputs)]
        for one, two in pairwise(widths):
            parts += [nn.Linear(one, two), nn.BatchNorm1d(two), nn.LeakyReLU(0.2)]
        return nn.Sequential(*parts)

    def _frames(self, taps: int, kernel: int) -> int:
        frames = (self.chunk - taps + 1) // 3
        for _ in range(2):
            frames = (frames - kernel + 1) // 3
        if frames < 1:
            raise ValueError(f"SincNet: chunks of {self.chunk} samples are too short for {taps} taps")
        return frames

    @property
    def min_length(self) -> int:
        """The samples of a chunk."""
        return self.chunk

    def extract(self, waveforms: Tensor) -> Tensor:
        """Average the dense representation over chunks: (B, hidden)."""
        chunks = self._random(waveforms) if self.training else self._chunks(waveforms)
        n, k = chunks.shape[:2]
        flat = chunks.flatten(0, 1)
        maps = self.stages(functional.layer_norm(flat, flat.shape[1:])[:, None])
        found: Tensor = self.dense(maps.flatten(1)).view(n, k, -1).mean(dim=1)
        return found

    def _chunks(self, waveforms: Tensor) -> Tensor:
        """Return the chunks of waveforms, every half of one, (B, chunks, chunk); the last one ends where they end."""
        found = waveforms.unfold(1, self.chunk, self.chunk // 2)
        if (waveforms.shape[1] - self.chunk) % (self.chunk // 2) == 0:
            return found
        return torch.cat([found, waveforms[:, None, -self.chunk :]], dim=1)

    def _random(self, waveforms: Tensor) -> Tensor:
        """Return a chunk of each waveform, (B, 1, chunk)."""
        last = waveforms.shape[1] - self.chunk
        starts = torch.randint(last + 1, (len(waveforms), 1), device=waveforms.device)
        return waveforms.gather(1, starts + torch.arange(self.chunk, device=waveforms.device))[:, None]


class Absolute(nn.Module):
    """The absolute value."""

    def forward(self, values: Tensor) -> Tensor:
        """Return it."""
        return values.abs()


class SincFilters(nn.Module):
    """Band-pass filters whose edges are learned: differences of two low-passes, Hamming window, of unit gain.

    From 50 Hz on, at least 50 Hz wide; begun on the mel scale from 30 Hz to half the rate less 100 Hz.
    """

    least_hz: ClassVar[float] = 50.0
    window: Tensor
    times: Tensor

    def __init__(self, filters: int, taps: int, rate: int) -> None:
        super().__init__()
        self.rate = rate
        low, high = (2595 * math.log10(1 + hz / 700) for hz in (30.0, rate / 2 - 100))
        edges = 700 * (10 ** (torch.linspace(low, high, filters + 1) / 2595) - 1)
        self.low = nn.Parameter(edges[:-1, None] / rate)
        self.band = nn.Parameter(edges.diff()[:, None] / rate)
        self.register_buffer("window", torch.hamming_window(taps, periodic=False), persistent=False)
        self.register_buffer("times", torch.arange(taps) - (taps - 1) / 2, persistent=False)

    def kernels(self) -> Tensor:
        """Return the impulse responses, (filters, 1, taps)."""
        least = self.least_hz / self.rate
        low = least + self.low.abs()
        high = (low + least + self.band.abs()).clamp(max=0.5)
        passed = 2 * high * torch.sinc(2 * high * self.times) - 2 * low * torch.sinc(2 * low * self.times)
        return (passed * self.window / (2 * (high - low)))[:, None]

    def forward(self, chunks: Tensor) -> Tensor:
        """Filter chunks (B, 1, length)."""
        return functional.conv1d(chunks, self.kernels())
