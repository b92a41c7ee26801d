"""The data set ``spoken-strings``: strings of digits with planted secrets, for recognisers of speech; bundled.

Made voices say them (`mi_audio.synthesis`), or the Free Spoken Digit Dataset's speakers, whose recordings of single
digits are joined. A canary is a clip of a known beginning and a secret end: each repetition is the same recording.
Private strings and canaries are of private voices; held out are other strings of theirs and canaries that were never
trained on; public are strings of other voices, with transcripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from mi_audio.adapter import RATE
from mi_audio.canaries import Canary
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.datasets.sayers import MADE, RECORDED, MadeVoices, RecordedVoices, Sayers
from mi_audio.splits import AudioSplit, quantised
from mi_audio.transcripts import DIGITS, LABELS, MOST, TRANSCRIPTS, coded
from micore.errors import DataError
from micore.kit.dataset_options import DatasetOptions, read_options, refuse_location, require_file
from micore.runtime import Random, derive_seed

NAME = "spoken-strings"
RECORDINGS = "audio/fsdd/recordings.zip"
SECONDS = {MADE: 3.0, RECORDED: 3.5}


class StringsOptions(DatasetOptions):
    """Options of ``spoken-strings``."""

    recordings: Literal["made", "spoken-digits"] = Field(
        MADE, description="Who speaks: made voices, or the speakers of the Free Spoken Digit Dataset, digits joined"
    )
    strings: int = Field(600, ge=1, le=100_000, description="Random private strings")
    held: int = Field(100, ge=1, le=100_000, description="Random strings held out")
    public: int = Field(200, ge=1, le=100_000, description="Random strings of other voices")
    canaries: int = Field(10, ge=1, le=1000, description="Planted secrets of each number of repeats")
    controls: int = Field(20, ge=0, le=1000, description="Planted secrets that are never trained on")
    repeats: str = Field("1,4,16,64", description="How often each canary is among the private clips")
    prefix: int = Field(3, ge=1, le=8, description="Digits that are said before a secret")
    secret: int = Field(2, ge=1, le=3, description="Digits of a secret")
    speakers: int = Field(20, ge=1, le=1000, description="Private voices, and as many public ones; of made voices")
    seconds: float | None = Field(None, gt=0.2, le=20, description="Of a clip; none: 3, of recordings 3.5")
    rate: int = Field(8000, ge=4000, le=48000, description="Samples per second that models take; clips have 16,000")
    seed: int = Field(0, description="Of the voices and of what they say")

    @field_validator("repeats")
    @classmethod
    def _numbers(cls, value: str) -> str:
        if not all(part.strip().isdecimal() and int(part) >= 1 for part in value.split(",")):
            raise ValueError("must be numbers from 1 on with commas between, such as 1,4,16,64")
        return value

    @property
    def levels(self) -> tuple[int, ...]:
        """How often each canary is private; of those that never are, 0."""
        trained = [int(part) for part in self.repeats.split(",") for _ in range(self.canaries)]
        return (*trained, *[0] * self.controls)


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips int16 (N, length), and where the digits are said in each: first samples and those after the last."""

    sounds: Tensor
    said: tuple[str, ...]
    spans: tuple[tuple[tuple[int, int], ...], ...]

    def split(self) -> AudioSplit:
        """Return them with their transcripts as labels."""
        return AudioSplit(self.sounds, coded(self.said), self.said)


def open_spoken_strings(location: str | None, **options: Any) -> AudioDataset:
    """Let the strings be spoken.

    Raises: DataError for options that do not fit, and without the recordings that they ask for.
    """
    refuse_location(NAME, location)
    settings = read_options(StringsOptions, NAME, options)
    if settings.prefix + settings.secret > MOST or len(settings.levels) > 10**settings.prefix:
        raise DataError(
            f"{NAME}: {len(settings.levels)} canaries have no prefixes of their own", hint="a longer prefix"
        )
    plain, held, public, planted = _made(settings)
    return AudioDataset(
        name=NAME, classes=DIGITS, rate=settings.rate, options=settings.model_dump(mode="json"),
        private=_joined(plain, planted, settings.levels), holdout=_joined(held, planted, _never(settings.levels)),
        public=AudioSplit(public.sounds, None, public.said), input_options={LABELS: TRANSCRIPTS},
        canaries=tuple(_canaries(planted, settings, len(plain.said), len(held.said))),
    )  # fmt: skip


def _never(levels: Sequence[int]) -> list[int]:
    return [int(level == 0) for level in levels]


def _joined(plain: Clips, planted: Clips, times: Sequence[int]) -> AudioSplit:
    """Return strings, and each canary so many times."""
    one, two = plain.split(), planted.split()
    rows = torch.arange(len(two)).repeat_interleave(torch.tensor(times))
    more = two.rows(rows)
    labels = torch.cat([coded(one.transcripts), coded(more.transcripts)])
    return AudioSplit(torch.cat([one.clips, more.clips]), labels, one.transcripts + more.transcripts)


def _canaries(planted: Clips, settings: StringsOptions, private: int, held: int) -> list[Canary]:
    """Note where the canaries are: behind so many other private and held-out clips."""
    rows, found = {"private": private, "holdout": held}, []
    for number, (said, spans, level) in enumerate(zip(planted.said, planted.spans, settings.levels, strict=True)):
        split, cut = "private" if level else "holdout", settings.prefix
        # from the end of the last known digit on: nothing of the secret is left before its first sound
        span = (spans[cut - 1][1], spans[-1][1])
        found.append(
            Canary(number=number, split=split, row=rows[split], repeats=level, span=span,
                   prefix=said[:cut], secret=said[cut:])
        )  # fmt: skip
        rows[split] += max(1, level)
    return found


def _made(settings: StringsOptions) -> tuple[Clips, Clips, Clips, Clips]:
    """Return private, held-out and public strings, and the canaries."""
    archive = str(require_file(NAME, settings, RECORDINGS)) if settings.recordings == RECORDED else None
    length = round((settings.seconds or SECONDS[settings.recordings]) * RATE)
    own, others = (Casting(kind, settings.speakers, length, settings.seed, archive) for kind in ("private", "public"))
    size, seed = settings.prefix + settings.secret, settings.seed
    numbers = {"private": settings.strings, "holdout": settings.held, "public": settings.public}
    said = {purpose: _strings(n, size, purpose, seed) for purpose, n in numbers.items()}
    return (
        _clips(own, said["private"], "private"), _clips(own, said["holdout"], "holdout"),
        _clips(others, said["public"], "public"), _clips(own, _secrets(settings), "canaries"),
    )  # fmt: skip


@dataclass(frozen=True)
class Casting:
    """Who speaks: private or public voices (kind), how many made ones or those of an archive, and samples of a clip."""

    kind: str
    speakers: int
    length: int
    seed: int
    archive: str | None


@lru_cache(maxsize=2)
def _sayers(casting: Casting) -> Sayers:
    if casting.archive is None:
        return MadeVoices.drawn(casting.kind, casting.speakers, casting.length, casting.seed)
    return RecordedVoices.read(casting.archive, casting.kind, casting.length)


@lru_cache(maxsize=8)
def _clips(casting: Casting, said: tuple[str, ...], purpose: str) -> Clips:
    """Let strings be said by any of the voices.

    Raises: DataError when one does not fit into a clip.
    """
    waveforms, spans = _sayers(casting).say(said, ("strings", purpose, casting.seed))
    last = max((places[-1][1] for places in spans), default=0)
    if last > casting.length:
        raise DataError(
            f"{NAME}: a string takes {last / RATE:.1f} s, longer than a clip", hint="-D seconds=4, or fewer digits"
        )
    return Clips(quantised(waveforms), said, tuple(spans))


def _strings(n: int, size: int, purpose: str, seed: int) -> tuple[str, ...]:
    numbers = Random(derive_seed("strings", purpose, seed)).integers(len(DIGITS), (n, size)).tolist()
    return tuple("".join(DIGITS[number] for number in row) for row in numbers)


def _secrets(settings: StringsOptions) -> tuple[str, ...]:
    """Return the canaries: beginnings that differ, and secrets; the first ones are the same whatever their number."""
    order = Random(derive_seed("canaries", settings.seed)).permutation(10**settings.prefix).tolist()
    ends = _strings(len(settings.levels), settings.secret, "secrets", settings.seed)
    return tuple(f"{number:0{settings.prefix}d}{end}" for number, end in zip(order, ends, strict=False))
