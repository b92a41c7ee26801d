"""Reconstructions against the voices of the private speakers.

A speaker encoder that no attack saw turns sounds into voiceprints. Those of different people are alike to begin with,
so that a cosine alone says little: what counts is how much nearer a sample is to its own speaker than to the others
(``own-other``), how often its own speaker is the nearest of all (``rank-1``), and the equal error rate of a system that
accepts by a threshold (``eer``, 0.5 is chance). They are measured on the sound itself, at 16 kHz, for every subject
alike: an attack stands beside noise with the speaker's own long-term spectrum, speech of others and held-out clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_audio.cases import audio_split
from mi_audio.splits import AudioSplit, quantised
from mi_evaluator_voice.encoders import Choice, Encoder, chosen_encoder
from mi_evaluator_voice.verification import (
    bootstrap_error_rate,
    equal_error_rate,
    is_first,
    own_minus_others,
    trial_scores,
)
from micore.contracts import Config, Dataset, Interval, Measurement, Reference, Subject
from micore.errors import DataError
from micore.kit.measuring import Figure, Rows, batches_of, measure
from micore.runtime import Runtime, derive_seed


class VoiceConfig(Config):
    """Settings of the evaluator."""

    encoder: Choice = Field(
        "auto", description="ge2e: the published speaker encoder; judge: features of the evaluator model; auto: ge2e "
        "where its weights are and it is not the target",
    )  # fmt: skip
    enrolled: int = Field(50, ge=1, description="clips of each speaker, at most, that make up its voiceprint")
    batch_size: int = Field(32, ge=1, description="clips in one forward pass")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Gallery:
    """Voiceprints (M, d) of enrolled clips of speakers (M,), where each clip stands, and which split they are of."""

    prints: Tensor
    speakers: Tensor
    places: dict[bytes, list[int]]
    split: str

    def same(self, waveforms: Tensor) -> list[list[int]]:
        """Return for each waveform (N, length) the enrolled clips with the same samples."""
        return [self.places.get(key, []) for key in contents(quantised(waveforms.detach().cpu()))]


class VoiceEvaluator:
    """Judge reconstructions by whose voice they have."""

    Config: ClassVar[type[Config]] = VoiceConfig

    def __init__(self, config: VoiceConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike.

        Raises: ModelError when there is no encoder to judge with; DataError without two private speakers.
        """
        encoder = chosen_encoder(self.config.encoder, reference, runtime)
        gallery = self._gallery(encoder, reference.dataset)
        found: list[Measurement] = []
        for subject in subjects:
            rows = Rows.of(subject, reference.truth)
            waveforms = reference.modality.join(rows.samples)
            prints = self._prints(encoder, waveforms)
            scores = trial_scores(prints, gallery.prints, gallery.speakers, gallery.same(waveforms))
            found += self._measured(scores, rows, encoder, self._notes(encoder, gallery, prints))
        return found

    def _measured(self, scores: Tensor, rows: Rows, encoder: Encoder, notes: tuple[str, ...]) -> list[Measurement]:
        judge = f"voice@{encoder.identity}"
        figures = (
            Figure("own-other", own_minus_others(scores, rows.labels), "cosine", "up", notes),
            Figure("rank-1", is_first(scores, rows.labels), "share", "up", notes),
        )
        measured = [measure(figure, rows, judge, resamples=self.config.resamples) for figure in figures]
        return [*measured, self._error_rate(scores, rows, judge, notes)]

    def _error_rate(self, scores: Tensor, rows: Rows, judge: str, notes: tuple[str, ...]) -> Measurement:
        own = scores.gather(1, rows.labels[:, None])[:, 0].isfinite()
        scores, labels = scores[own], rows.labels[own]
        value = equal_error_rate(scores, labels) if len(scores) else float("nan")
        seed = derive_seed(judge, "eer", rows.subject) % 2**32
        bounds = bootstrap_error_rate(scores, labels, seed, self.config.resamples) if len(scores) else None
        interval = bounds and Interval(low=min(value, bounds[0]), high=max(value, bounds[1]))
        trials = f"{len(scores)} trials of the own speaker, {int(scores.isfinite().sum()) - len(scores)} of others"
        return Measurement(
            name="eer", subject=rows.subject, value=value, interval=interval or None, n=len(scores),
            clusters=len(labels.unique()), unit="share", direction="down", evaluator=judge, notes=(trials, *notes),
        )  # fmt: skip

    def _notes(self, encoder: Encoder, gallery: Gallery, prints: Tensor) -> tuple[str, ...]:
        enrolled = f"{int(gallery.speakers.max()) + 1} speakers by {len(gallery.speakers)} {gallery.split} clips"
        lost = int((~prints.isfinite().all(dim=1)).sum())
        broken = (f"{lost} samples that the encoder cannot read are near to nobody",) if lost else ()
        return (*encoder.notes, enrolled, *broken)

    def _prints(self, encoder: Encoder, waveforms: Tensor) -> Tensor:
        return torch.cat([encoder.embed(batch) for batch in batches_of(waveforms, self.config.batch_size)])

    def _gallery(self, encoder: Encoder, dataset: Dataset) -> Gallery:
        name, split = enrolment(dataset)
        rows = torch.cat([evenly(split, label, self.config.enrolled) for label in range(len(dataset.classes))])
        chosen = split.rows(rows)
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(contents(chosen.clips)):
            places.setdefault(key, []).append(place)
        if chosen.labels is None:
            raise DataError(f"voice: the {name} clips of {dataset.name} have no labels")
        return Gallery(self._prints(encoder, chosen.take(range(len(chosen)))), chosen.labels, places, name)


def enrolment(dataset: Dataset) -> tuple[str, AudioSplit]:
    """Return the clips that speakers are known by: held-out ones where every speaker has some, or else private ones.

    Raises: DataError when there are fewer than two speakers, or one without clips.
    """
    wanted = set(range(len(dataset.classes)))
    if len(wanted) < 2:
        raise DataError(f"voice: {dataset.name} has {len(wanted)} speakers; own against others needs two")
    for name in ("holdout", "private"):
        try:
            split = audio_split(dataset, name)
        except DataError:
            if name == "private":
                raise
            continue
        if split.labels is not None and wanted <= set(split.labels.tolist()):
            return name, split
    raise DataError(f"voice: {dataset.name} has speakers without private clips")


def evenly(split: AudioSplit, label: int, most: int) -> Tensor:
    """Return the rows of up to so many clips of a speaker, spread over all."""
    labels = torch.empty(0) if split.labels is None else split.labels
    rows = labels.eq(label).nonzero().flatten()
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()]


def contents(clips: Tensor) -> list[bytes]:
    """Return the samples of clips, int16 (N, length), as bytes to find equal ones by."""
    return [clip.tobytes() for clip in clips.numpy()]
