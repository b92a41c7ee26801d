"""Who says strings of digits: made voices, or recordings of real ones, joined."""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import soundfile
import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import resample

from mi_audio.adapter import RATE
from mi_audio.synthesis import FRAME_S, REACH, Voice, rendered, spoken
from micore.errors import DataError
from micore.runtime import Random, derive_seed

MADE: Literal["made"] = "made"
RECORDED: Literal["spoken-digits"] = "spoken-digits"
BATCH = 100
PAUSE_S = 0.08
"""Between recorded digits."""

LONGEST_S = 0.6
"""Recorded digits that take longer, one in ten, are left out."""

LEVEL = 0.1
"""Effective value that recorded digits are brought to."""

PUBLIC = ("nicolas", "theo")
"""Speakers of the Free Spoken Digit Dataset that are public; the others are private."""

Spans = list[tuple[tuple[int, int], ...]]


class Sayers(Protocol):
    """Voices that say strings of digits."""

    def say(self, strings: Sequence[str], purpose: tuple[object, ...]) -> tuple[Tensor, Spans]:
        """Return waveforms (N, length) and the samples of each digit; a last one behind the length does not fit."""


@dataclass(frozen=True, eq=False)
class MadeVoices:
    """Made voices, and the samples of a clip."""

    voices: tuple[Voice, ...]
    length: int

    @classmethod
    def drawn(cls, kind: str, n: int, length: int, seed: int) -> MadeVoices:
        """Draw n voices."""
        return cls(tuple(Voice.drawn(Random(derive_seed("voice", kind, number, seed))) for number in range(n)), length)

    def say(self, strings: Sequence[str], purpose: tuple[object, ...]) -> tuple[Tensor, Spans]:
        """Say each string by any voice, one after the other by a stream of its own."""
        hop, frames = round(RATE * FRAME_S), -(-self.length // round(RATE * FRAME_S)) + 1
        found, spans = [torch.zeros(0, self.length)], []
        for start in range(0, len(strings), BATCH):
            rng = Random(derive_seed(*purpose, start))
            part = strings[start : start + BATCH]
            voices = [self.voices[row] for row in rng.integers(len(self.voices), (len(part),)).tolist()]
            tracks = [spoken(said, voice, frames, rng) for said, voice in zip(part, voices, strict=True)]
            found.append(rendered(tracks, voices, self.length, rng))
            # what goes on behind a word belongs to it
            spans += [tuple((first * hop, (end + REACH) * hop) for first, end in track.words) for track in tracks]
        return torch.cat(found), _apart(spans)


def _apart(spans: Spans) -> Spans:
    """End each word but the last where its own sounds end, so that the next one's are not before it."""
    reach = REACH * round(RATE * FRAME_S)
    return [(*((first, end - reach) for first, end in places[:-1]), places[-1]) for places in spans]


@dataclass(frozen=True, eq=False)
class RecordedVoices:
    """Recordings of each digit (10 lists of waveforms) by each speaker, and the samples of a clip."""

    takes: tuple[tuple[tuple[Tensor, ...], ...], ...]
    length: int

    @classmethod
    def read(cls, archive: str, kind: str, length: int) -> RecordedVoices:
        """Read the recordings of the private or of the public speakers.

        Raises: DataError for an archive that is not that of the data set.
        """
        found: dict[str, list[list[Tensor]]] = defaultdict(lambda: [[] for _ in range(10)])
        try:
            with zipfile.ZipFile(archive) as files:
                for name in sorted(files.namelist()):
                    digit, speaker, *_ = name.rpartition("/")[2].split("_")
                    if not name.endswith(".wav") or (speaker in PUBLIC) != (kind == "public"):
                        continue
                    take = _waveform(files.read(name))
                    if len(take) <= LONGEST_S * RATE:
                        found[speaker][int(digit)].append(take)
        except (OSError, ValueError, IndexError, zipfile.BadZipFile, soundfile.SoundFileError) as error:
            raise DataError(f"{archive} is not the Free Spoken Digit Dataset: {error}") from error
        takes = tuple(tuple(tuple(part) for part in found[speaker]) for speaker in sorted(found))
        if not takes or not all(part for speaker in takes for part in speaker):
            raise DataError(f"{archive} lacks recordings of some digits")
        return cls(takes, length)

    def say(self, strings: Sequence[str], purpose: tuple[object, ...]) -> tuple[Tensor, Spans]:
        """Join recordings of one speaker for each string, with pauses and a loudness of its own."""
        rows, spans = [], []
        for place, said in enumerate(strings):
            rng = Random(derive_seed(*purpose, place))
            speaker = self.takes[int(rng.integers(len(self.takes), ()))]
            row, places = self._joined(said, speaker, rng)
            rows.append((0.6 + 0.8 * float(rng.uniform(()))) * row + 0.0005 * rng.normal((self.length,)))
            spans.append(places)
        return torch.stack(rows).clamp(-1, 1), spans

    def _joined(
        self, said: str, speaker: Sequence[Sequence[Tensor]], rng: Random
    ) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        pause, parts, places, end = round(PAUSE_S * RATE), [], [], 0
        for sign in said:
            takes = speaker[int(sign)]
            take = takes[int(rng.integers(len(takes), ()))]
            parts += [torch.zeros(pause), take]
            places.append((end + pause, end + pause + len(take)))
            end += pause + len(take)
        row = torch.cat(parts)[: self.length]
        return functional.pad(row, (0, self.length - len(row))), tuple(places)


def _waveform(data: bytes) -> Tensor:
    """Read a recording as canonical samples of a level of its own."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    waveform = resample(torch.from_numpy(samples.mean(axis=1)), rate, RATE)
    return (LEVEL * waveform / waveform.square().mean().sqrt().clamp(min=1e-6)).clamp(-1, 1)
