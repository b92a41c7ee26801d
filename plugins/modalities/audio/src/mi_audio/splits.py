"""Clips in memory as 16-bit samples, handed out in the canonical range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from micore.files import digest

FULL_SCALE = 32768.0
"""Of 16-bit samples: 1.0 in the canonical range."""


@dataclass(frozen=True, eq=False)
class AudioSplit:
    """Part of a data set (`micore.contracts.Split`).

    clips: int16 (N, length). labels: int64 (N,), or None when the adversary has none. transcripts: what is said in each
    clip, or none at all.

    Raises: ValueError when these have another type or shape.
    """

    clips: Tensor
    labels: Tensor | None = None
    transcripts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.clips.dtype != torch.int16 or self.clips.ndim != 2:
            raise ValueError(f"clips must be int16 (N, length), not {self.clips.dtype} {tuple(self.clips.shape)}")
        if self.labels is not None and (self.labels.dtype, self.labels.shape) != (torch.int64, self.clips.shape[:1]):
            raise ValueError(f"labels must be int64 ({len(self.clips)},), not {tuple(self.labels.shape)}")
        if self.transcripts and len(self.transcripts) != len(self.clips):
            raise ValueError(f"{len(self.transcripts)} transcripts for {len(self.clips)} clips")

    def __len__(self) -> int:
        return len(self.clips)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return these waveforms, float32 (len(indices), length) in [-1, 1], on the CPU."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        return self.clips[rows].to(torch.float32) / FULL_SCALE

    def rows(self, indices: Tensor) -> AudioSplit:
        """Return some of the clips with their labels and transcripts."""
        said = tuple(self.transcripts[row] for row in indices.tolist()) if self.transcripts else ()
        return AudioSplit(self.clips[indices], None if self.labels is None else self.labels[indices], said)

    def of(self, label: int | None) -> AudioSplit:
        """Return the clips with a label; none, where there are no labels."""
        labels = torch.full((len(self),), -1) if self.labels is None else self.labels
        return self.rows(labels.eq(-2 if label is None else label).nonzero().flatten())

    def unlabelled(self) -> AudioSplit:
        """Return the clips as the adversary gets them."""
        return AudioSplit(self.clips)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the clips, labels and transcripts, 64 hex digits."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return digest(list(self.clips.shape), self.clips.contiguous().numpy().tobytes(), labels, list(self.transcripts))


def quantised(waveforms: Tensor) -> Tensor:
    """Return waveforms in [-1, 1] as 16-bit samples."""
    return (waveforms * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)
