"""The data set ``spoken-digits``: the Free Spoken Digit Dataset (Jackson et al., 2018; CC BY-SA 4.0).

Six people say digits, each with a microphone and a room of their own: a network can tell them by these alone, so that
figures for speakers say little of voices. Recordings 0 to 4 of each digit are held out, as the authors do; of the
others, targets learn the first half and evaluator models the second. The data root must hold
``audio/fsdd/recordings.zip``; readers of `read_speech` are the public data for speakers.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from pydantic import Field

from mi_audio.datasets.changes import ChangeOptions, changed
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.datasets.read_speech import public_speech
from mi_audio.datasets.reading import Reader, cut, members, stacked
from mi_audio.splits import AudioSplit, quantised
from micore.errors import DataError
from micore.kit.dataset_options import read_options, refuse_location, require_file

ARCHIVE = "audio/fsdd/recordings.zip"
NAME = re.compile(r"(?:.*/)?(\d)_(\w+)_(\d+)\.wav")
HELD_BELOW, JUDGED_FROM = 5, 28
"""Numbers of recordings: below, held out; from, for evaluator models; between, the target's."""

PRIVATE_SPEAKERS = 4
"""Of the six, who say the private digits; the others are public then."""


class SpokenDigitsOptions(ChangeOptions):
    """Options of ``spoken-digits``."""

    task: Literal["speaker", "digit"] = Field("speaker", description="What the classes are")
    rate: int = Field(8000, ge=4000, le=48000, description="Samples per second that models take; recordings have 8,000")
    seconds: float = Field(0.64, ge=0.2, le=2, description="Of a clip; longer recordings are cut")
    public: Literal["read-speech", "none"] = Field(
        "read-speech", description="What the adversary has, where classes are speakers"
    )


def open_spoken_digits(location: str | None, **options: Any) -> AudioDataset:
    """Open it.

    Raises: DataError when a file is not there or damaged, or an option does not fit.
    """
    refuse_location("spoken-digits", location)
    settings = read_options(SpokenDigitsOptions, "spoken-digits", options)
    clips, digits, speakers, numbers, names = _read(settings)
    by_speaker = settings.task == "speaker"
    labels = speakers if by_speaker else digits
    private = torch.full_like(numbers, 1).bool() if by_speaker else speakers < PRIVATE_SPEAKERS
    said = tuple(str(digit) for digit in digits.tolist())
    everything = AudioSplit(clips, labels, said)

    def part(chosen: torch.Tensor) -> AudioSplit:
        return everything.rows((private & chosen).nonzero().flatten())

    public = everything.rows((~private).nonzero().flatten()).unlabelled()
    if by_speaker:
        public = _readers(settings)
    return changed(
        AudioDataset(
            name="spoken-digits", classes=names if by_speaker else tuple("0123456789"),
            private=part((numbers >= HELD_BELOW) & (numbers < JUDGED_FROM)), holdout=part(numbers < HELD_BELOW),
            judged=part(numbers >= JUDGED_FROM), public=public, rate=settings.rate,
            options=settings.model_dump(mode="json"),
        ),
        settings,
    )  # fmt: skip


def _readers(settings: SpokenDigitsOptions) -> AudioSplit | None:
    return None if settings.public == "none" else public_speech(settings, settings.seconds, per_reader=4)


def _read(
    settings: SpokenDigitsOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Return all clips, int16, with digit, speaker and number of each, and the speakers' names."""
    reader, clips, facts = Reader(), [], []
    for name, stream in members(require_file("spoken-digits", settings, ARCHIVE)):
        match = NAME.fullmatch(name)
        if match is None:
            raise DataError(f"spoken-digits: {name} is not named DIGIT_SPEAKER_NUMBER.wav")
        clips.append(cut(reader.read(stream, name), settings.seconds, most=1))
        facts.append((int(match[1]), match[2], int(match[3])))
    names = tuple(sorted({speaker for _, speaker, _ in facts}))
    rows = torch.tensor([(digit, names.index(speaker), number) for digit, speaker, number in facts])
    return quantised(stacked(clips, settings.seconds)), rows[:, 0], rows[:, 1], rows[:, 2], names
