"""What was recovered as sound, without any classifier.

Everything is measured on the waveform. ``spectral-private`` is the log-spectral distance to the nearest private clip of
the speaker, ``spectral-public`` that to the nearest public clip: where the second is the smaller one, the attack gave
back public speech. ``colour`` is how far the long-term spectrum is from the speaker's, which is what a microphone adds
and part of what a voice is; in the figures ending in ``-white`` the colour of every clip is divided out first. Two
figures say whether it is speech at all: the share of voiced frames, and of frames whose loudness moves with syllables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_audio.cases import audio_split
from mi_audio.spectra import whitened
from mi_audio.splits import AudioSplit
from mi_evaluator_speech.intelligibility import intelligibility, load_listener
from mi_evaluator_speech.spectral import (
    colour_distances,
    colours,
    frames_of,
    nearest_of_label,
    spectral_distances,
    spectrogram,
)
from mi_evaluator_speech.speechlike import moving_share, voiced_share
from micore.contracts import Config, Dataset, Measurement, Reference, Samples, Subject
from micore.errors import DataError
from micore.kit.measuring import Figure, Rows, batches_of, measure
from micore.kit.training import placed
from micore.runtime import Runtime

PLAIN, WHITE = "", "-white"
IDENTITY = "speech@waveform"
"""No model judges."""


class SpeechConfig(Config):
    """Settings of the evaluator."""

    private_clips: int = Field(20, ge=1, description="private clips of each speaker, at most, that are compared with")
    public_clips: int = Field(1000, ge=1, description="public clips, at most, that are compared with")
    recogniser: Path | None = Field(
        None, description="bundle of a recogniser that tells whether anything is said; none: that is not measured"
    )
    batch_size: int = Field(64, ge=1, description="clips at a time")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Sounds:
    """Clips as they are compared, on the CPU: frames by variant (N, T, mels), colours (N, bins)."""

    frames: dict[str, Tensor]
    colours: Tensor


@dataclass(frozen=True, slots=True)
class Heard:
    """Private clips with their labels (M,), the speakers' mean colours (K, bins), and public clips, if any."""

    private: Sounds
    labels: Tensor
    colours: Tensor
    public: Sounds | None


class SpeechEvaluator:
    """Judge reconstructions as sound."""

    Config: ClassVar[type[Config]] = SpeechConfig

    def __init__(self, config: SpeechConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike.

        Raises: DataError without labelled private clips; ModelError for a recogniser that cannot judge.
        """
        heard = self._heard(reference.dataset, runtime)
        path = self.config.recogniser
        listener = None if path is None else load_listener(path, reference, runtime)
        found: list[Measurement] = []
        for subject in subjects:
            rows = Rows.of(subject, reference.truth)
            waveforms = reference.modality.join(rows.samples)
            figures = [*self._near(waveforms, rows.labels, heard, runtime), *self._speechlike(waveforms, runtime)]
            if listener is not None:
                figures += intelligibility([placed(part, runtime) for part in self._batches(waveforms)], listener)
            found += [measure(figure, rows, IDENTITY, resamples=self.config.resamples) for figure in figures]
        return found

    def _near(self, waveforms: Samples, labels: Tensor, heard: Heard, runtime: Runtime) -> list[Figure]:
        sounds, figures = self._sounds(waveforms, runtime), []
        for variant in (PLAIN, WHITE):
            private = nearest_of_label(sounds.frames[variant], labels, heard.private.frames[variant], heard.labels)
            figures.append(Figure(f"spectral-private{variant}", private, "dB", "down"))
            if heard.public is not None:
                public = spectral_distances(sounds.frames[variant], heard.public.frames[variant]).amin(dim=1)
                figures.append(Figure(f"spectral-public{variant}", public, "dB", "none"))
        colour = colour_distances(sounds.colours, heard.colours[labels])
        return [*figures, Figure("colour", colour, "dB", "down")]

    def _batches(self, waveforms: Samples) -> Sequence[Samples]:
        return batches_of(waveforms, self.config.batch_size)

    def _speechlike(self, waveforms: Samples, runtime: Runtime) -> list[Figure]:
        parts = [placed(batch, runtime) for batch in self._batches(waveforms)]
        finite = torch.cat([part.isfinite().all(dim=1) for part in parts]).cpu()
        figures = []
        for name, share in (("voiced", voiced_share), ("syllables", moving_share)):
            values = torch.cat([share(part) for part in parts]).cpu().masked_fill(~finite, torch.nan)
            figures.append(Figure(name, values, "share", "none"))
        return figures

    @torch.no_grad()
    def _sounds(self, waveforms: Samples, runtime: Runtime) -> Sounds:
        mel, frames, found = spectrogram(runtime.device), {PLAIN: [], WHITE: []}, []
        for batch in self._batches(waveforms):
            clips = placed(batch, runtime)
            frames[PLAIN].append(frames_of(clips, mel).cpu())
            frames[WHITE].append(frames_of(whitened(clips), mel).cpu())
            found.append(colours(clips).cpu())
        return Sounds({name: torch.cat(parts) for name, parts in frames.items()}, torch.cat(found))

    def _heard(self, dataset: Dataset, runtime: Runtime) -> Heard:
        private = audio_split(dataset, "private")
        if private.labels is None:
            raise DataError(f"speech: the private clips of {dataset.name} have no labels")
        n = len(dataset.classes)
        chosen = private.rows(torch.cat([self._evenly(private, label) for label in range(n)]))
        if chosen.labels is None or len(chosen.labels.unique()) < n:
            raise DataError(f"speech: {dataset.name} has speakers without private clips")
        sounds = self._sounds(chosen.take(range(len(chosen))), runtime)
        means = torch.stack([sounds.colours[chosen.labels == label].mean(dim=0) for label in range(n)])
        return Heard(sounds, chosen.labels, means, self._public(dataset, runtime))

    def _evenly(self, split: AudioSplit, label: int) -> Tensor:
        labels = torch.empty(0) if split.labels is None else split.labels
        return _spread(labels.eq(label).nonzero().flatten(), self.config.private_clips)

    def _public(self, dataset: Dataset, runtime: Runtime) -> Sounds | None:
        try:
            public = audio_split(dataset, "public")
        except DataError:
            return None
        rows = _spread(torch.arange(len(public)), self.config.public_clips)
        return self._sounds(public.take(rows), runtime)


def _spread(rows: Tensor, most: int) -> Tensor:
    """Return up to so many of some rows, spread over all."""
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()]
