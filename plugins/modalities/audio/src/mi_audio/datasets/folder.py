"""A directory of the user's own recordings: ``folder-audio:PATH``, with one directory per speaker, or per word.

Whole recordings are held out, never parts of one. Recordings are cut into clips of one length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mi_audio.datasets.changes import ChangeOptions, changed
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.datasets.reading import Reader, cut, is_recording, stacked
from mi_audio.splits import AudioSplit, quantised
from micore.errors import DataError
from micore.kit.dataset_options import PathText, find_place, read_labels, read_options
from micore.runtime import Random, derive_seed

NONE = "none"
NAME = "folder-audio"


class FolderOptions(ChangeOptions):
    """Options of ``folder-audio``."""

    seconds: float = Field(1.6, ge=0.2, le=20, description="Of a clip; longer recordings give several")
    holdout: float = Field(0.2, ge=0, lt=1, description="Share of each speaker's recordings that is held out")
    public: PathText | None = Field(
        None, description="Directory of recordings of other people, in directories of their own or not; or none"
    )
    public_speakers: str | None = Field(
        None, description="Speakers of PATH that the adversary has, such as ann,bob or 0-4; the others are private"
    )
    seed: int = Field(0, description="Of the choice of what is held out")


def open_folder(location: str | None, **options: Any) -> AudioDataset:
    """Open a directory with one directory of recordings per speaker; hidden and other files are passed over.

    Raises: DataError that names the directory, file, speaker or option at fault.
    """
    if not location:
        raise DataError(f"{NAME} needs a directory", hint=f"{NAME}:PATH, with one directory of recordings per speaker")
    settings = read_options(FolderOptions, NAME, options)
    root = find_place(settings, location)
    speakers = _directories(root)
    theirs = _public_labels(speakers, settings)
    names = tuple(name for label, name in enumerate(speakers) if label not in theirs)
    if not names:
        raise DataError(f"{NAME}: all speakers are public, none is left to be private")
    reader = Reader()
    private, holdout = _private(root, names, settings, reader)
    public, others = _public(root, [speakers[label] for label in theirs], settings, reader)
    return changed(
        AudioDataset(
            name=f"{NAME}:{location}", classes=names, private=private, holdout=holdout, public=public,
            rate=settings.rate, others=others, other_classes=("somebody-else",) if others is not None else (),
            options=settings.model_dump(mode="json"), notes=reader.notes(),
        ),
        settings,
    )  # fmt: skip


def _directories(root: Path) -> tuple[str, ...]:
    try:
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}", hint="give a directory") from error
    if not names:
        raise DataError(
            f"{root} has no directories", hint="put the recordings of each speaker into a directory of its own"
        )
    return tuple(names)


def _public_labels(speakers: tuple[str, ...], settings: FolderOptions) -> list[int]:
    if settings.public is not None and settings.public_speakers is not None:
        raise DataError(f"{NAME}: public and public_speakers contradict each other", hint="give one of them")
    if settings.public_speakers is not None:
        return read_labels(settings.public_speakers, speakers, "public_speakers")
    if settings.public is None:
        raise DataError(
            f"{NAME}: what does the adversary have? No public recordings are given",
            hint="public_speakers=... sets speakers apart; or public=DIRECTORY, or public=none",
        )
    return []


def _private(
    root: Path, names: tuple[str, ...], settings: FolderOptions, reader: Reader
) -> tuple[AudioSplit, AudioSplit | None]:
    """Return the clips that are trained on and those that are held out, both labelled."""
    kept, held = [], []
    for name in names:
        recordings = _recordings(root / name)
        n = max(1, round(settings.holdout * len(recordings))) if settings.holdout else 0
        if n >= len(recordings):
            raise DataError(
                f"{NAME}: speaker {name!r} has {len(recordings)} recording, too few to hold one out",
                hint="add recordings, or holdout=0",
            )
        order = Random(derive_seed("holdout", settings.seed, name)).permutation(len(recordings)).tolist()
        chosen = {order[place] for place in range(n)}
        kept.append(_clips([file for row, file in enumerate(recordings) if row not in chosen], settings, reader))
        held.append(_clips([recordings[row] for row in sorted(chosen)], settings, reader))
    return _labelled(kept), _labelled(held) if settings.holdout else None


def _recordings(directory: Path) -> list[Path]:
    found = sorted(file for file in directory.rglob("*") if is_recording(file.name) and file.is_file())
    if not found:
        raise DataError(f"{directory} has no recordings", hint="WAV, FLAC, OGG or MP3; or remove the directory")
    return found


def _clips(files: list[Path], settings: FolderOptions, reader: Reader) -> Tensor:
    return stacked([cut(reader.read(file, str(file)), settings.seconds) for file in files], settings.seconds)


def _labelled(speakers: list[Tensor]) -> AudioSplit:
    labels = torch.arange(len(speakers)).repeat_interleave(torch.tensor([len(clips) for clips in speakers]))
    return AudioSplit(quantised(torch.cat(speakers)), labels)


def _public(
    root: Path, names: list[str], settings: FolderOptions, reader: Reader
) -> tuple[AudioSplit | None, AudioSplit | None]:
    """Return the public clips, and half of them, which teach evaluator models what somebody else sounds like."""
    if settings.public == NONE:
        return None, None
    if settings.public is not None:
        place = find_place(settings, settings.public)
        if place.resolve().is_relative_to(root.resolve()) or root.resolve().is_relative_to(place.resolve()):
            raise DataError(f"{NAME}: {place} and {root} lie in each other", hint="keep public recordings apart")
        files = _recordings(place)
    else:
        files = [file for name in names for file in _recordings(root / name)]
    clips = quantised(_clips(files, settings, reader))
    taught = clips[::2]
    return AudioSplit(clips), AudioSplit(taught, torch.zeros(len(taught), dtype=torch.int64))
