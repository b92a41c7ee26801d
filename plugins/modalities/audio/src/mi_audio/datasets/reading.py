"""Reading recordings of any kind, as canonical waveforms of one channel, and cutting them into clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

import soundfile
import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import resample

from mi_audio.adapter import RATE
from micore.errors import DataError

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
SHORTEST_S = 0.1
SILENCE = 1e-4
"""Of full scale: a recording that never exceeds it holds nothing."""

QUIET = 0.1
"""Of a recording's mean power: quieter clips are pauses and left out (Ravanelli & Bengio drop such chunks)."""


@dataclass
class Reader:
    """Reads recordings and counts what it changed in them."""

    changes: Counter[str] = field(default_factory=Counter)

    def read(self, source: Path | IO[bytes], name: str) -> Tensor:
        """Return a recording, (samples,) in [-1, 1]: channels averaged, resampled to `RATE`.

        Raises: DataError that names the file when it is no recording, silent or too short.
        """
        try:
            values, rate = soundfile.read(source, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError, RuntimeError) as error:
            raise DataError(f"{name} cannot be read as audio: {error}", hint="repair it or take it out") from error
        waveform = self._one_channel(torch.from_numpy(values.T.copy()))
        if len(waveform) < SHORTEST_S * rate:
            raise DataError(
                f"{name} is {len(waveform) / rate:.2f} s long; {SHORTEST_S} s are needed", hint="take it out"
            )
        if not bool(waveform.isfinite().all()) or float(waveform.abs().max()) < SILENCE:
            raise DataError(f"{name} is silent, or holds values that are no numbers", hint="take it out")
        if rate == RATE:
            return waveform
        self.changes[f"resampled from {rate} Hz"] += 1
        return resample(waveform, rate, RATE).clamp(-1, 1)

    def _one_channel(self, channels: Tensor) -> Tensor:
        if len(channels) > 1:
            self.changes[f"mixed down from {len(channels)} channels"] += 1
        return channels.mean(dim=0)

    def notes(self) -> tuple[str, ...]:
        """Say what was changed, for those who read figures of these data."""
        return tuple(f"{count} recordings were {change}" for change, count in sorted(self.changes.items()))


def cut(recording: Tensor, seconds: float, most: int | None = None) -> Tensor:
    """Cut a recording into clips (N, length), at most so many: one after the other, without pauses and the rest.

    One that is shorter is filled up with silence.
    """
    length = round(seconds * RATE)
    if len(recording) <= length:
        return functional.pad(recording, (0, length - len(recording)))[None]
    clips = recording.unfold(0, length, length)
    power = clips.square().mean(dim=1)
    return clips[power > QUIET * power.mean()][:most]


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the recordings of a zip file by name.

    Raises: DataError when it is no zip file.
    """
    try:
        with ZipFile(archive) as opened:
            for name in sorted(opened.namelist()):
                if is_recording(name):
                    with opened.open(name) as stream:
                        yield name, stream
    except BadZipFile as error:
        raise DataError(f"{archive} is no zip file: {error}", hint="download it again") from error


def is_recording(name: str) -> bool:
    """Tell by a file's name whether it is one to be read."""
    return name.lower().endswith(ENDINGS) and not name.rpartition("/")[2].startswith(".")


def stacked(clips: Iterable[Tensor], seconds: float) -> Tensor:
    """Join groups of clips, perhaps none, (N, length)."""
    return torch.cat([torch.empty(0, round(seconds * RATE)), *clips])
