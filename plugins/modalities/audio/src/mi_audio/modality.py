"""The modality ``audio``: samples are float32 tensors (N, length) in [-1, 1], waveforms of one channel.

Of goal ``corpus`` they are lists of strings: what was said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_audio.adapter import AudioAdapter
from mi_audio.augment import augment
from mi_audio.cases import corpus_cases, floors, instance_cases, observed, truths
from mi_audio.controls import class_controls
from mi_audio.overlap import measure_overlap
from mi_audio.previews import export_clips, export_transcripts, fragment, transcripts
from micore.contracts import Case, Dataset, Reconstruction, Samples, Truth
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.kit.choice import class_cases
from micore.runtime import Random
from micore.target import Target

if TYPE_CHECKING:
    from micore.testing.setting import ToySetting

_WAVEFORMS, _BYTES, _LENGTHS = "waveforms", "bytes", "lengths"


class AudioModality:
    """How waveforms fit a model, are stored and are shown (`micore.contracts.Modality`)."""

    bounds = (-1.0, 1.0)

    def adapter(self, spec: InputSpec) -> AudioAdapter:
        """Return the conversion from waveforms to a model's input.

        Raises: ModelError when the spec is not that of an audio model.
        """
        return AudioAdapter(spec)

    def cases(
        self,
        goal: str,
        dataset: Dataset | None,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return what a run of this goal attacks.

        class: one case per chosen class of the target, such as a speaker. instance: one per chosen private clip, whose
        voiceprint the target gives (`observe`). corpus: one per planted secret, with its clip where it is silenced.

        Raises: UsageError when the goal is another, or choice or evidence do not fit.
        """
        if goal == "instance":
            return instance_cases(dataset, choice, evidence)
        if goal == "corpus":
            return corpus_cases(dataset, choice, evidence)
        if goal != "class":
            raise UsageError(f"goal {goal!r} is not there for audio", hint="class, instance or corpus")
        if evidence is not None:
            raise UsageError(f"--evidence {evidence}: goal 'class' has no evidence", hint="leave it out")
        return class_cases(dataset, bundle_classes, choice)

    def observe(self, cases: Sequence[Case], dataset: Dataset, target: Target) -> list[Case]:
        """Return cases of goal ``instance`` with what the target answered to their clips."""
        return observed(cases, dataset, target)

    def truths(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
        """Return the private clip or transcript behind each case, by case id."""
        return truths(cases, dataset)

    def floors(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
        """Return what the adversary has without the target; see `mi_audio.cases.floors`."""
        return floors(cases, dataset)

    def class_controls(
        self, reconstructions: Sequence[Reconstruction], dataset: Dataset
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return what a judge of speakers may accept without an inversion; see `mi_audio.controls`."""
        return class_controls(reconstructions, dataset)

    def augment(self, samples: Tensor, strength: str, rng: Random) -> Tensor:
        """Change waveforms at random for training; ``strength``: none, light, medium or strong.

        Raises: UsageError when there is no such strength.
        """
        return augment(samples, strength, rng)

    def pack(self, samples: Samples) -> dict[str, Tensor]:
        """Return waveforms as they are, or transcripts as all their bytes (UTF-8) and how many each has."""
        if isinstance(samples, Tensor):
            return {_WAVEFORMS: samples.detach().cpu().contiguous()}
        encoded = [line.encode() for line in samples]
        everything = bytearray(b"".join(encoded))
        data = torch.frombuffer(everything, dtype=torch.uint8) if everything else torch.empty(0, dtype=torch.uint8)
        return {_BYTES: data, _LENGTHS: torch.tensor([len(item) for item in encoded], dtype=torch.int64)}

    def unpack(self, tensors: Mapping[str, Tensor]) -> Samples:
        """Return stored samples."""
        if _WAVEFORMS in tensors:
            return tensors[_WAVEFORMS]
        pieces = tensors[_BYTES].split(tensors[_LENGTHS].tolist())
        return [piece.numpy().tobytes().decode() for piece in pieces]

    def join(self, parts: Sequence[Samples]) -> Samples:
        """Return several groups of samples, at least one, as one."""
        if isinstance(parts[0], Tensor):
            return torch.cat(list(parts))
        return [line for part in parts for line in part]

    def overlap(self, dataset: Dataset) -> Mapping[str, Any]:
        """Count public and holdout clips that equal or resemble private ones; see `measure_overlap`."""
        return measure_overlap(dataset)

    def export(self, samples: Mapping[str, Samples], directory: Path) -> list[Path]:
        """Write a WAV file with all clips of each key, or a text file with its transcripts; return the paths.

        Raises: StorageError.
        """
        if all(isinstance(part, Tensor) for part in samples.values()):
            return export_clips(samples, directory)
        return export_transcripts(samples, directory)

    def show(self, samples: Samples, limit: int) -> str:
        """Return a self-contained HTML fragment with players and spectrograms of up to ``limit`` clips."""
        return fragment(samples, limit) if isinstance(samples, Tensor) else transcripts(samples, limit)

    def toy(self) -> list[ToySetting]:
        """Return the planted problems that conformance checks attack and defend."""
        from mi_audio.toy import toys
        from mi_audio.toy_strings import corpus

        return [*toys(), corpus()]
