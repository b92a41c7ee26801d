"""Random changes of clips for training: loudness, place in time, noise, and the colour of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from micore.errors import UsageError
from micore.runtime import Random

BANDS = 8


@dataclass(frozen=True)
class Change:
    """Ranges of a random change.

    gain: largest relative change of loudness; shift: largest, as a share of the clip, which goes round; noise:
    deviation at most; colour: deviation of each of `BANDS` bands of frequency in decibels.
    """

    gain: float
    shift: float
    noise: float
    colour: float

    def __call__(self, waveforms: Tensor, rng: Random) -> Tensor:
        """Change each waveform (N, length) in its own way; same shape and range."""
        n, length = waveforms.shape
        numbers = rng.uniform((n, 3)).to(waveforms.device)
        places = torch.arange(length, device=waveforms.device)
        offset = ((2 * numbers[:, :1] - 1) * self.shift * length).long()
        moved = waveforms.gather(1, (places + offset) % length)
        if self.colour:
            moved = coloured(moved, self.colour * rng.normal((n, BANDS)).to(waveforms.device))
        noise = self.noise * numbers[:, 2:] * rng.normal((n, length)).to(waveforms.device)
        gains = 1 + self.gain * (2 * numbers[:, 1:2] - 1)
        return (gains * moved + noise).clamp(-1, 1)


def coloured(waveforms: Tensor, decibels: Tensor) -> Tensor:
    """Raise and lower bands of frequency (N, BANDS)."""
    spectra = torch.fft.rfft(waveforms)
    curve = functional.interpolate(decibels[:, None], size=spectra.shape[1], mode="linear", align_corners=True)[:, 0]
    return torch.fft.irfft(spectra * 10 ** (curve / 20), n=waveforms.shape[1])


STRENGTHS: dict[str, Change | None] = {
    "none": None,
    "light": Change(gain=0.2, shift=0.05, noise=0.0, colour=0.0),
    "medium": Change(gain=0.4, shift=0.2, noise=0.005, colour=0.0),
    "strong": Change(gain=0.5, shift=0.5, noise=0.01, colour=4.0),
}


def augment(waveforms: Tensor, strength: str, rng: Random) -> Tensor:
    """Change waveforms (N, length) at random; ``strength``: none, light, medium or strong.

    Raises: UsageError when there is no such strength.
    """
    if strength not in STRENGTHS:
        raise UsageError(f"augmentation {strength!r} is unknown", hint="one of " + ", ".join(STRENGTHS))
    change = STRENGTHS[strength]
    return waveforms if change is None else change(waveforms, rng)
