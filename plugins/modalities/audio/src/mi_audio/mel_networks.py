"""Networks that make and read log-mel spectrograms: parts of the adversary's priors.

Transposed convolutions over time, with the mel bands as channels. Groups are normalised, not batches: what comes out
depends on its own row only, in training and after it. Spectrograms here are scaled (`mi_audio.rendering.Scale`).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

__all__ = ["MelGenerator", "MelReader"]

_HALVINGS = 3
_GROUPS = 4


def _coarse(frames: int) -> int:
    return -(-frames // 2**_HALVINGS)


class MelGenerator(nn.Module):
    """Map latents z ~ N(0, I), (B, latent_dim), to scaled log-mel spectrograms (B, mels, frames).

    A linear layer to an eighth of the frames, then three transposed convolutions of stride 2 (the shape of a DCGAN,
    Radford et al., ICLR 2016, over time alone).

    Args:
        latent_dim: length of z.
        mels, frames: of a spectrogram.
        width: channels, a multiple of 4; twice as many in the coarsest stage.
        condition_dim: length of what is known besides z, such as a voiceprint; 0: nothing.
    """

    def __init__(self, latent_dim: int, mels: int, frames: int, width: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.frames = latent_dim, frames
        widths = [2 * width, width, width, width]
        self.project = nn.Linear(latent_dim + condition_dim, widths[0] * _coarse(frames))
        self.reshape = nn.Unflatten(1, (widths[0], _coarse(frames)))
        self.up = nn.Sequential(*(self._stage(one, two) for one, two in itertools.pairwise(widths)))
        self.to_mels = nn.Conv1d(width, mels, 5, padding=2)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        conv = nn.ConvTranspose1d(inputs, outputs, 4, stride=2, padding=1)
        return nn.Sequential(nn.GroupNorm(_GROUPS, inputs), nn.ReLU(), conv)

    def forward(self, latents: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return spectrograms (B, mels, frames)."""
        known = latents if conditions is None else torch.cat([latents, conditions], dim=1)
        maps = self.up(self.reshape(self.project(known)))
        found: Tensor = self.to_mels(torch.relu(maps))[:, :, : self.frames]
        return found


class MelReader(nn.Module):
    """Map scaled log-mel spectrograms (B, mels, frames) to ``outputs`` numbers, each row by itself.

    Args: see `MelGenerator`; outputs: numbers of a row: 1 for a critic.
    """

    def __init__(self, mels: int, frames: int, width: int, outputs: int, condition_dim: int = 0) -> None:
        super().__init__()
        widths = [mels, width, width, 2 * width]
        self.down = nn.Sequential(*(self._stage(one, two) for one, two in itertools.pairwise(widths)))
        self.head = nn.Linear(widths[-1] * _coarse(frames) + condition_dim, outputs)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(inputs, outputs, 5, stride=2, padding=2), nn.LeakyReLU(0.2))

    def forward(self, spectrograms: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return (B, outputs)."""
        maps = self.down(spectrograms).flatten(1)
        known = maps if conditions is None else torch.cat([maps, conditions], dim=1)
        found: Tensor = self.head(known)
        return found
