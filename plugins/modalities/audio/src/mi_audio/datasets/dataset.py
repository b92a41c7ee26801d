"""The one data-set class that all openers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from mi_audio.adapter import RATE, RATE_OPTION
from mi_audio.canaries import Canary
from mi_audio.splits import AudioSplit
from mi_audio.transcripts import LABELS, TRANSCRIPTS, letters
from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioDataset:
    """Private, holdout and public clips of one setting (`micore.contracts.Dataset`).

    private, holdout: labelled with `classes`. public: without labels, as the adversary has it. rate: samples per second
    of models that are trained on the data; the clips themselves are canonical. others: clips of further classes,
    labelled from 0 in the order of `other_classes`, so that an evaluator can say "somebody else". judged: recordings of
    the private classes that evaluator models learn instead of the private ones, where there are any. input_options:
    what models of these data need to know besides the rate. notes: what was changed in the recordings when they were
    read. canaries: planted secrets, where there are any.

    Raises: DataError when a split is empty, or the lengths of clips differ; ValueError when private, holdout or others
    have no labels.
    """

    modality: ClassVar[str] = "audio"

    name: str
    classes: tuple[str, ...]
    private: AudioSplit
    holdout: AudioSplit | None
    public: AudioSplit | None
    rate: int
    others: AudioSplit | None = None
    other_classes: tuple[str, ...] = ()
    judged: AudioSplit | None = None
    canaries: tuple[Canary, ...] = ()
    input_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        length = self.private.clips.shape[1]
        for name, part in self._splits.items():
            if len(part) == 0:
                raise DataError(f"{self.name}: no {name} clips")
            if part.clips.shape[1] != length:
                raise DataError(f"{self.name}: {name} clips have {part.clips.shape[1]} samples, private {length}")
        for labelled in (self.private, self.holdout, self.others, self.judged):
            if labelled is not None and labelled.labels is None:
                raise ValueError("private, holdout, judged and other clips need labels")

    @property
    def input(self) -> InputSpec:
        """What a model trained on it takes: waveforms at its rate."""
        length = -(-self.private.clips.shape[1] * self.rate // RATE)
        return InputSpec(shape=(length,), options={RATE_OPTION: self.rate, **self.input_options})

    @property
    def transcribed(self) -> bool:
        """Whether labels are coded transcripts (`mi_audio.transcripts`) and classes the letters they are written in."""
        return self.input_options.get(LABELS) == TRANSCRIPTS

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        parts = {name: split.fingerprint for name, split in self._splits.items()}
        return digest(self.modality, list(self.classes), self.rate, parts)

    @cached_property
    def _splits(self) -> dict[str, AudioSplit]:
        parts = {"private": self.private, "holdout": self.holdout, "public": self.public}
        return {name: part for name, part in parts.items() if part is not None}

    def split(self, name: str) -> AudioSplit:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError when the data set has none of this name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[AudioSplit, tuple[str, ...]]:
        """Return what evaluator models learn: clips of the private classes, then the others under further labels.

        Of transcripts it is their first letter.
        """
        own = self.judged or self.private
        if self.transcribed and own.labels is not None:
            return replace(own, labels=letters(own.labels)[:, 0] - 1), self.classes
        if self.others is None or own.labels is None or self.others.labels is None:
            return own, self.classes
        labels = torch.cat([own.labels, self.others.labels + len(self.classes)])
        return AudioSplit(torch.cat([own.clips, self.others.clips]), labels), self.classes + self.other_classes
