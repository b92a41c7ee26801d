"""The data set ``voices``: made voices that say digits (`mi_audio.synthesis`), bundled.

Private voices are the classes; public voices are others. Each clip is of other words, loudness and microphone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field

from mi_audio.adapter import RATE
from mi_audio.datasets.changes import UNCHANGED, ChangeOptions, changed
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.splits import AudioSplit, quantised
from mi_audio.synthesis import FRAME_S, WORDS, Voice, length_of, rendered, spoken
from micore.kit.dataset_options import read_options, refuse_location
from micore.runtime import Random, derive_seed

BATCH = 100
JUDGED_SHARE = 0.8
"""Of the clips of a public voice: those that evaluator models learn."""


class VoicesOptions(ChangeOptions):
    """Options of ``voices``."""

    speakers: int = Field(10, ge=2, le=1000, description="Private voices, which are the classes")
    clips: int = Field(40, ge=2, le=1000, description="Of each private voice for training")
    held: int = Field(10, ge=1, le=1000, description="Of each private voice held out")
    others: int = Field(40, ge=1, le=1000, description="Public voices")
    other_clips: int = Field(20, ge=2, le=1000, description="Of each public voice")
    seconds: float = Field(1.0, gt=0.2, le=20, description="Of a clip")
    seed: int = Field(0, description="Of the voices and of what they say")


def open_voices(location: str | None, **options: Any) -> AudioDataset:
    """Make the voices and let them speak.

    Raises: DataError for options that do not fit.
    """
    refuse_location("voices", location)
    settings = read_options(VoicesOptions, "voices", options)
    private, holdout, others = _made(settings.model_copy(update=UNCHANGED))
    judged = round(JUDGED_SHARE * settings.other_clips)
    taught = (torch.arange(len(others)) % settings.other_clips < judged).nonzero().flatten()
    return changed(
        AudioDataset(
            name="voices", classes=tuple(f"voice-{k}" for k in range(settings.speakers)), private=private,
            holdout=holdout, public=others.unlabelled(), rate=settings.rate, others=others.rows(taught),
            other_classes=tuple(f"other-{k}" for k in range(settings.others)), options=settings.model_dump(mode="json"),
        ),
        settings,
    )  # fmt: skip


@lru_cache(maxsize=2)
def _made(settings: VoicesOptions) -> tuple[AudioSplit, AudioSplit, AudioSplit]:
    """Return private, held-out and public clips, the clips of a voice one after the other."""
    n = settings.clips + settings.held
    own = _clips("private", settings.speakers, n, settings)
    places = torch.arange(len(own)) % n
    trained = places < settings.clips
    private, holdout = (own.rows(chosen.nonzero().flatten()) for chosen in (trained, ~trained))
    return private, holdout, _clips("public", settings.others, settings.other_clips, settings)


def _clips(kind: str, speakers: int, per_speaker: int, settings: VoicesOptions) -> AudioSplit:
    voices = [Voice.drawn(Random(derive_seed("voice", kind, number, settings.seed))) for number in range(speakers)]
    labels = torch.arange(speakers).repeat_interleave(per_speaker)
    clips, said = [], []
    for part in labels.split(BATCH):
        rng = Random(derive_seed("speech", kind, len(said), settings.seed))
        waveforms, words = utterances([voices[label] for label in part.tolist()], settings.seconds, rng)
        clips.append(quantised(waveforms))
        said += words
    return AudioSplit(torch.cat(clips), labels, tuple(said))


def utterances(voices: list[Voice], seconds: float, rng: Random) -> tuple[torch.Tensor, list[str]]:
    """Let each voice say random digits until its clip is full; return waveforms (N, length), and the digits."""
    length, frames = round(seconds * RATE), round(seconds / FRAME_S) + 1
    said = ["".join(_digits(voice, seconds, rng)) for voice in voices]
    tracks = [spoken(words, voice, frames, rng) for words, voice in zip(said, voices, strict=True)]
    return rendered(tracks, voices, length, rng), said


def _digits(voice: Voice, seconds: float, rng: Random) -> Iterator[str]:
    """Draw digits that fill a clip: the last one may be cut."""
    found: list[str] = []
    while not found or length_of(found, voice) < seconds:
        found.append(str(int(rng.integers(len(WORDS), (1,)))))
        yield found[-1]
