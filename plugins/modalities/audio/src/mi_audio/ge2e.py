"""The published speaker encoder of Resemblyzer 0.1.4, learned by GE2E (Wan et al., ICASSP 2018; arXiv:1710.10467).

Three LSTM layers read the power of 40 mel bands over 1.6 s and answer with a voiceprint of 256 values. It learned from
thousands of speakers and nothing of any target here, so it can judge voices; as a target it is attacked like others.

Fidelity notes (Resemblyzer / here)
- librosa's spectrogram and a loop over clips / `torch.stft` and all clips at once; voiceprints agree (tested against a
  float64 formula).
- Silence is cut out by webrtcvad before a clip is read / it is not: that is neither differentiable nor to be had
  everywhere. Voiceprints of clips with long pauses differ.
- A clip is made as loud as -30 dBFS, never quieter: as there. Clips shorter than 1.6 s are filled up with zeros: as
  there.
- The weights are not part of this package: `weights_file` says where they are looked for.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import melscale_fbanks

from mi_audio.adapter import RATE, RATE_OPTION
from micore.errors import ModelError
from micore.inputs import InputSpec

__all__ = ["VARIABLE", "Ge2e", "has_weights", "partial_starts", "pretrained", "weights_file"]

VARIABLE = "MI_SPEAKER_ENCODER"
"""Environment variable with the path of the weights, for when the package is not installed."""

PACKAGE, FILE = "resemblyzer", "pretrained.pt"
HOW_TO_GET = f"`pip install --no-deps {PACKAGE}`, or set {VARIABLE} to its {FILE}"

N_FFT, HOP, MELS = 400, 160, 40
WIDTH, LAYERS = 256, 3
FRAMES = 160
"""Of a part of a clip that is read at once: 1.6 s."""
STEP = 77
"""Frames from one part to the next: 1.3 parts in a second."""
COVERED = 0.75
"""Of the last part that must lie within the clip, unless it is the only one."""
LOUDNESS = 10 ** (-30 / 20)
"""Least effective value of a clip: -30 dBFS."""


class Ge2e(nn.Module):
    """Voiceprints of waveforms at 16,000 Hz, of any length; differentiable.

    ``forward`` and ``answer``: (B, length) in [-1, 1] to (B, 256), none negative, of length 1: voiceprints of different
    people have a cosine of 0.55 to 0.75, so that a cosine alone says little.

    length: samples of a clip of the data that it is made for.
    """

    comes_trained = True
    window: Tensor
    filters: Tensor

    def __init__(self, length: int = FRAMES * HOP) -> None:
        super().__init__()
        self.own_input = InputSpec(shape=(length,), options={RATE_OPTION: RATE})
        self.lstm = TrainingLstm(MELS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        filters = melscale_fbanks(N_FFT // 2 + 1, 0.0, RATE / 2, MELS, RATE, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the voiceprints of waveforms (B, length), (B, 256)."""
        if waveforms.ndim != 2 or waveforms.shape[1] == 0:
            raise ValueError(f"Ge2e: waveforms of shape {tuple(waveforms.shape)}; expected (B, at least 1 sample)")
        starts = partial_starts(waveforms.shape[1])
        mel = self.mel(loud(waveforms.float()), starts[-1] + FRAMES)
        parts = torch.stack([mel[:, start : start + FRAMES] for start in starts], dim=1)
        _, (hidden, _) = self.lstm(parts.flatten(0, 1))
        prints = functional.normalize(self.linear(hidden[-1]).relu(), dim=1)
        return functional.normalize(prints.view(len(waveforms), len(starts), -1).mean(dim=1), dim=1)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return voiceprints."""
        found: Tensor = self(inputs)
        return found

    def mel(self, waveforms: Tensor, frames: int) -> Tensor:
        """Return the power of mel bands (B, frames, 40), no logarithm; zeros follow where a waveform ends."""
        padded = functional.pad(waveforms, (0, max(0, frames * HOP - waveforms.shape[1])))
        spectrum = torch.stft(
            padded, N_FFT, HOP, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (self.filters.T @ power).transpose(1, 2)


class TrainingLstm(nn.LSTM):
    """An LSTM that stays in training mode, without which cuDNN gives no gradients; it has no dropout to switch off."""

    def train(self, mode: bool = True) -> Self:
        """Stay as it is."""
        return super().train(True)


def loud(waveforms: Tensor) -> Tensor:
    """Raise waveforms (B, length) to an effective value of -30 dBFS; louder ones and silence stay."""
    level: Tensor = (waveforms.square().mean(dim=1, keepdim=True) + 1e-12).sqrt()
    return waveforms * (LOUDNESS / level).clamp(min=1.0)


def partial_starts(length: int) -> list[int]:
    """Return the first frames of the parts that a clip of so many samples is read in."""
    frames = -(-(length + 1) // HOP)
    starts = list(range(0, max(1, frames - FRAMES + STEP + 1), STEP))
    covered = (length - starts[-1] * HOP) / (FRAMES * HOP)
    return starts[:-1] if covered < COVERED and len(starts) > 1 else starts


def pretrained(length: int = FRAMES * HOP) -> Ge2e:
    """Return the encoder with its published weights, in eval mode.

    Raises: ModelError when the weights are not there, or the file holds something else.
    """
    path = weights_file()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        with torch.random.fork_rng(devices=[]):  # what is drawn is thrown away
            network = Ge2e(length)
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, IndexError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{path} holds no weights of the speaker encoder: {reason}", hint=HOW_TO_GET) from error
    return network.eval()


def weights_file() -> Path:
    """Return where the published weights lie: as `VARIABLE` says, or in the installed package, which is not imported.

    Raises: ModelError when they are in neither place.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ModelError(f"{VARIABLE}={named} is no file", hint=HOW_TO_GET)
        return Path(named)
    found = importlib.util.find_spec(PACKAGE)
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        if (Path(place) / FILE).is_file():
            return Path(place) / FILE
    raise ModelError("the weights of the speaker encoder ge2e are not here", hint=HOW_TO_GET)


def has_weights() -> bool:
    """Tell whether the weights can be had; a variable that names no file is an error, not an absence.

    Raises: ModelError as `weights_file` does, where the user has named a file.
    """
    if os.environ.get(VARIABLE):
        return bool(weights_file())
    try:
        return bool(weights_file())
    except ModelError:
        return False
