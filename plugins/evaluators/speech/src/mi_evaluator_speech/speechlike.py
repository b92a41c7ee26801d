"""What makes sound like speech: voiced frames, and loudness that moves with syllables."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.adapter import RATE

HOP = RATE // 100
FRAME = 4 * HOP
"""40 ms: two periods at least of the lowest pitch."""
LOWEST_HZ, HIGHEST_HZ = 60, 400
PERIODIC = 0.5
"""Autocorrelation from which on a frame counts as voiced (Boersma, 1993: 0.45 for the strength of voicing)."""
QUIET_DB = 40.0
"""Frames that lie so far below the loudest one of their clip are pauses."""
SYLLABLES_HZ = (2.0, 10.0)
"""Range of the modulation of loudness in speech, which is strongest near 4 Hz (Houtgast and Steeneken, 1985)."""
MOVES_DB = 3.0
"""Effective value of loudness in that range from which on a frame counts as moving; white noise has less than 1."""
LOCAL_S = 0.25


def voiced_share(waveforms: Tensor) -> Tensor:
    """Return the share of frames that are voiced, (N,): periodic at a pitch of 60 to 400 Hz, and no pause.

    The autocorrelation of a windowed frame over that of its window, as Boersma (1993) has it.
    """
    frames = functional.pad(waveforms, (0, max(0, FRAME - waveforms.shape[1]))).unfold(1, FRAME, HOP)
    window = torch.hann_window(FRAME, device=waveforms.device)
    centred = (frames - frames.mean(dim=2, keepdim=True)) * window
    own, whole = _autocorrelation(centred), _autocorrelation(window)
    lags = slice(RATE // HIGHEST_HZ, RATE // LOWEST_HZ + 1)
    periodic = (own / own[..., :1].clamp(min=1e-12) / (whole / whole[:1]))[..., lags].amax(dim=2)
    level = 10 * own[..., 0].clamp(min=1e-12).log10()
    heard = (level > level.amax(dim=1, keepdim=True) - QUIET_DB) & (own[..., 0] > 1e-9)
    return ((periodic > PERIODIC) & heard).double().mean(dim=1)


def _autocorrelation(frames: Tensor) -> Tensor:
    power = torch.fft.rfft(frames, n=2 * FRAME).abs().square()
    return torch.fft.irfft(power)[..., :FRAME]


def moving_share(waveforms: Tensor) -> Tensor:
    """Return the share of frames around which loudness moves as with syllables, (N,)."""
    power = functional.avg_pool1d(waveforms[:, None].square(), min(FRAME, waveforms.shape[1]), HOP, ceil_mode=True)
    level = 10 * (power[:, 0] + 1e-8).log10()
    spectrum = torch.fft.rfft(level - level.mean(dim=1, keepdim=True))
    hertz = torch.fft.rfftfreq(level.shape[1], d=HOP / RATE, device=level.device)
    within = (hertz >= SYLLABLES_HZ[0]) & (hertz <= SYLLABLES_HZ[1])
    moves = torch.fft.irfft(spectrum * within, n=level.shape[1]).square()
    width = min(round(LOCAL_S * RATE / HOP) | 1, 2 * ((level.shape[1] - 1) // 2) + 1)
    local = functional.avg_pool1d(moves[:, None], width, 1, width // 2, count_include_pad=False)[:, 0]
    return (local.sqrt() > MOVES_DB).double().mean(dim=1)
