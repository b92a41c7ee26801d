"""What searches for waveforms share: where they begin, what is changed between steps, and what is penalised.

All functions treat each row for itself and are differentiable where that makes sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import resample

from mi_audio.adapter import RATE, rate_of
from mi_audio.augment import BANDS, coloured
from mi_audio.spectra import long_term, shaped_noise
from mi_audio.splits import FULL_SCALE, AudioSplit, quantised
from micore.contracts import Case, Split
from micore.errors import DataError
from micore.inputs import InputSpec
from micore.kit.row_optimizers import RowOptimizer, State
from micore.runtime import Random, Runtime

Start = Literal["zeros", "laplace", "gaussian", "pink", "public-mean", "public-clip"]

LAPLACE = 0.05
"""Scale of Laplacian noise; amplitudes of speech are spread about so."""
LEVEL = LAPLACE * math.sqrt(2)
"""The effective value of noise that searches begin with."""
NEARLY_ZERO = 1e-4
"""Effective value of a start of zeros: with nothing at all, networks of absolute values have no gradient."""


# where a search begins ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PublicSpeech:
    """What a search keeps of public clips: some of them, float32 (N, length), and their mean spectrum (1, bins)."""

    clips: Tensor
    spectrum: Tensor

    @classmethod
    def of(cls, public: Split | None, n: int, rng: Random) -> PublicSpeech:
        """Draw up to n public clips.

        Raises: DataError when there are none.
        """
        if not isinstance(public, AudioSplit) or not len(public):
            raise DataError("this start needs public clips", hint="a start of noise, such as laplace, needs none")
        clips = public.take(rng.permutation(len(public))[:n])
        return cls(clips=clips, spectrum=long_term(clips).square().mean(dim=0, keepdim=True).sqrt())

    def state(self) -> dict[str, Any]:
        """Return what `of_state` takes, 16-bit."""
        return {"clips": quantised(self.clips), "spectrum": self.spectrum}

    @classmethod
    def of_state(cls, state: Any, runtime: Runtime) -> PublicSpeech:
        """Return what was kept, on the run's device."""
        clips = state["clips"].to(runtime.device).float() / FULL_SCALE
        return cls(clips=clips, spectrum=state["spectrum"].to(runtime.device))


def needs_public(start: Start) -> bool:
    """Tell whether a start is made of public clips."""
    return start in ("public-mean", "public-clip")


def starts(
    start: Start, cases: Sequence[Case], restarts: int, length: int, speech: PublicSpeech | None, runtime: Runtime
) -> Tensor:
    """Return where each restart of each case begins, (cases, restarts, length).

    zeros (nearly); laplace, gaussian and pink noise; public-mean: noise with the mean spectrum of public clips;
    public-clip: some public clip. Raises: DataError when public clips are needed and there are none.
    """
    if needs_public(start) and speech is None:
        raise DataError(f"start={start} needs public clips")
    found = [_start(start, restarts, length, speech, runtime.rng(f"start {start}", case.id)) for case in cases]
    return torch.stack(found).clamp(-1, 1)


def _start(start: Start, n: int, length: int, speech: PublicSpeech | None, rng: Random) -> Tensor:
    if speech is not None and start == "public-clip":
        return _fitted(speech.clips[rng.integers(len(speech.clips), (n,)).to(speech.clips.device)], length)
    if speech is not None and start == "public-mean":
        return shaped_noise(speech.spectrum.expand(n, -1), length, rng)
    if start == "laplace":
        sides = 2 * rng.uniform((n, length)) - 1
        return -LAPLACE * sides.sign() * torch.log1p(-sides.abs().clamp(max=1 - 1e-6))
    noise = rng.normal((n, length))
    return LEVEL * _pink(noise) if start == "pink" else (NEARLY_ZERO if start == "zeros" else LEVEL) * noise


def _pink(noise: Tensor) -> Tensor:
    """Give white noise a power that falls with 1/f, of effective value 1."""
    spectra = torch.fft.rfft(noise)
    places = torch.arange(spectra.shape[1], device=noise.device).clamp(min=1)
    found = torch.fft.irfft(spectra * places.rsqrt(), n=noise.shape[1])
    return found / found.square().mean(dim=1, keepdim=True).sqrt()


def _fitted(clips: Tensor, length: int) -> Tensor:
    """Cut clips (N, any length) or repeat them to a length."""
    times = -(-length // clips.shape[1])
    return clips.repeat(1, times)[:, :length]


def sped(clips: Tensor, speed: float) -> Tensor:
    """Return clips (N, length) played at another speed, to a hundredth: a higher or lower voice; cut or repeated."""
    percent = round(100 * speed)
    return clips if percent == 100 else _fitted(resample(clips, percent, 100), clips.shape[1])


# lengths --------------------------------------------------------------------------------------------------


def canonical_length(spec: InputSpec) -> int:
    """Return the samples of canonical clips that fill a model's input."""
    return round(spec.shape[0] * RATE / rate_of(spec))


# between steps --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Views:
    """Random changes of waveforms under which a reconstruction must hold (expectation over transformation).

    noise: deviation; gain: largest relative change; shift: largest, as a share of the clip, going round; colour:
    deviation of each of `BANDS` bands in decibels. bank: noise (length,) that is turned by a random amount, which saves
    drawing as many numbers as samples at each step.
    """

    N_NUMBERS: ClassVar[int] = 4 + BANDS

    bank: Tensor
    noise: float = 0.0
    gain: float = 0.0
    shift: float = 0.0
    colour: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return any((self.noise, self.gain, self.shift, self.colour))

    def __call__(self, waveforms: Tensor, numbers: Tensor) -> Tensor:
        """Change each waveform (B, length) as its numbers (B, `N_NUMBERS`), uniform in [0, 1), say."""
        if not self.changes:
            return waveforms
        places = torch.arange(waveforms.shape[1], device=waveforms.device)
        found = waveforms
        if self.shift:
            found = _turned(found, places, (2 * numbers[:, :1] - 1) * self.shift)
        if self.colour:
            found = coloured(found, self.colour * math.sqrt(12) * (numbers[:, 4:] - 0.5))
        found = found * (1 + self.gain * (2 * numbers[:, 1:2] - 1))
        if self.noise:
            signs = 2 * (numbers[:, 3:4] < 0.5).float() - 1
            found = found + self.noise * signs * _turned(self.bank.expand(len(found), -1), places, numbers[:, 2:3])
        return found


def _turned(waveforms: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """Turn each waveform by a share of its length."""
    length = waveforms.shape[1]
    return waveforms.gather(1, (places + (shares * length).long()) % length)


@dataclass(frozen=True, kw_only=True)
class Processed:
    """A row optimiser whose values are processed after every ``every``-th step of a row."""

    optimizer: RowOptimizer
    process: Callable[[Tensor], Tensor]
    every: int

    def start(self, values: Tensor) -> State:
        """Return the optimiser's state."""
        return self.optimizer.start(values)

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step."""
        moved, state = self.optimizer.step(values, gradients, state, steps)
        due = (steps % self.every == 0).view(-1, *[1] * (values.ndim - 1))
        return torch.where(due, self.process(moved), moved), state


def low_passed(waveforms: Tensor, hertz: float) -> Tensor:
    """Return waveforms (N, length) without what is above a frequency: Butterworth's curve of order 4, no delay."""
    spectra = torch.fft.rfft(waveforms)
    places = torch.linspace(0, RATE / 2, spectra.shape[1], device=waveforms.device)
    return torch.fft.irfft(spectra * (1 + (places / hertz) ** 8).rsqrt(), n=waveforms.shape[1])


def equalised(waveforms: Tensor, log_gains: Tensor) -> Tensor:
    """Filter waveforms (N, length) by curves through log gains (N, bands), equally spaced on the mel scale."""
    spectra = torch.fft.rfft(waveforms)
    hertz = torch.linspace(0, RATE / 2, spectra.shape[1], device=waveforms.device)
    last = log_gains.shape[1] - 1
    places = last * torch.log1p(hertz / 700) / math.log1p(RATE / 2 / 700)
    lower = places.floor().clamp(max=last - 1)
    share, index = places - lower, lower.long()
    curve = (1 - share) * log_gains[:, index] + share * log_gains[:, index + 1]
    return torch.fft.irfft(spectra * curve.exp(), n=waveforms.shape[1])


def requantised(waveforms: Tensor) -> Tensor:
    """Return waveforms as they are after they were written with 16 bits."""
    return quantised(waveforms.detach().clamp(-1, 1)).float() / FULL_SCALE


# penalties ------------------------------------------------------------------------------------------------


def roughness(values: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbours along the last dimension, (N,)."""
    return values.diff(dim=-1).abs().flatten(1).mean(dim=1)


def variation(spectrograms: Tensor) -> Tensor:
    """Return the total variation of spectrograms (N, mels, frames), mean over times and bands, (N,)."""
    return roughness(spectrograms) + roughness(spectrograms.transpose(1, 2))


def excess(waveforms: Tensor, level: float) -> Tensor:
    """Return by how much the effective value of waveforms is above a level, squared, in units of the level, (N,)."""
    effective = (waveforms.square().mean(dim=1) + 1e-12).sqrt()
    return functional.relu(effective / level - 1).square()
