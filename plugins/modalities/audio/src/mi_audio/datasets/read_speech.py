"""The data set ``read-speech``: people who read aloud, of LibriSpeech (Panayotov et al., ICASSP 2015; CC BY 4.0).

Ten readers of test-other are the private classes, whole utterances of theirs are held out; 251 other readers of
train-clean-100 are public. The data root must hold ``audio/librispeech_10spk/private_10spk_test-other.zip`` and
``audio/librispeech_mini/public_251spk_train-clean-100_4s.zip``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mi_audio.datasets.changes import ChangeOptions, changed
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.datasets.reading import Reader, cut, members, stacked
from mi_audio.splits import AudioSplit, quantised
from micore.kit.dataset_options import DatasetOptions, read_options, refuse_location, require_file

PRIVATE = "audio/librispeech_10spk/private_10spk_test-other.zip"
PUBLIC = "audio/librispeech_mini/public_251spk_train-clean-100_4s.zip"
JUDGED_OTHERS = 100
"""Public clips that evaluator models learn as "somebody else"; as many as a few readers have."""


class ReadSpeechOptions(ChangeOptions):
    """Options of ``read-speech``."""

    seconds: float = Field(1.6, ge=0.2, le=4, description="Of a clip")
    held: int = Field(2, ge=1, le=9, description="Utterances of each reader that are held out; of ten")


def open_read_speech(location: str | None, **options: Any) -> AudioDataset:
    """Open it.

    Raises: DataError when a file is not there or damaged, or an option does not fit.
    """
    refuse_location("read-speech", location)
    settings = read_options(ReadSpeechOptions, "read-speech", options)
    readers = _readers(settings)
    names = tuple(sorted(readers))
    private, holdout = (
        _joined([readers[name][part] for name in names], settings.seconds)
        for part in (slice(None, -settings.held), slice(-settings.held, None))
    )
    public = public_speech(settings, settings.seconds)
    rows = torch.linspace(0, len(public) - 1, min(JUDGED_OTHERS, len(public))).long()
    others = AudioSplit(public.clips[rows], torch.zeros(len(rows), dtype=torch.int64))
    return changed(
        AudioDataset(
            name="read-speech", classes=names, private=private, holdout=holdout, public=public, rate=settings.rate,
            others=others, other_classes=("somebody-else",), options=settings.model_dump(mode="json"),
        ),
        settings,
    )  # fmt: skip


def _readers(settings: ReadSpeechOptions) -> dict[str, list[Tensor]]:
    """Return the clips of each utterance of each reader."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    reader = Reader()
    for name, stream in members(require_file("read-speech", settings, PRIVATE)):
        found[name.split("/")[-2]].append(cut(reader.read(stream, name), settings.seconds))
    return found


def _joined(readers: list[list[Tensor]], seconds: float) -> AudioSplit:
    clips = [stacked(utterances, seconds) for utterances in readers]
    labels = torch.arange(len(clips)).repeat_interleave(torch.tensor([len(part) for part in clips]))
    return AudioSplit(quantised(torch.cat(clips)), labels)


def public_speech(settings: DatasetOptions, seconds: float, per_reader: int | None = None) -> AudioSplit:
    """Return clips of the 251 public readers, at most so many of each.

    Raises: DataError when the file is not there.
    """
    reader = Reader()
    clips = [
        cut(reader.read(stream, name), seconds, per_reader)
        for name, stream in members(require_file("read-speech", settings, PUBLIC))
    ]
    return AudioSplit(quantised(stacked(clips, seconds)))
