"""The modality ``text``: samples are lists of strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_text.adapter import TextAdapter
from mi_text.augment import augment
from mi_text.cases import KINDS, text_cases, text_truths
from mi_text.observing import observed
from mi_text.overlap import measure_overlap
from mi_text.previews import compared, export_texts, fragment
from micore.contracts import Case, Dataset, Truth
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.kit.choice import class_cases
from micore.runtime import Random
from micore.showing import masked
from micore.target import Target

if TYPE_CHECKING:
    from micore.testing.setting import ToySetting

_BYTES, _LENGTHS = "bytes", "lengths"


class TextModality:
    """How texts fit a model, are stored and are shown (`micore.contracts.Modality`)."""

    def adapter(self, spec: InputSpec) -> TextAdapter:
        """Return the conversion from texts to a model's input.

        Raises: ModelError when the spec is not that of a model of texts.
        """
        return TextAdapter(spec)

    def cases(
        self,
        goal: str,
        dataset: Dataset | None,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return what a run of this goal attacks.

        class: one case per chosen class of the target. instance, prompt: one per chosen private text, whose evidence
        the target gives (`observe`). corpus: the whole training corpus as one case (evidence ``nothing``), or one per
        chosen text with something hidden (``prefix``, ``masked``, ``candidates``, ``canary``).

        Raises: UsageError when the goal is another, or choice or evidence do not fit.
        """
        if goal in KINDS:
            return text_cases(goal, dataset, choice, evidence)
        if goal != "class":
            raise UsageError(f"goal {goal!r} is not there for texts", hint="class, " + ", ".join(KINDS))
        if evidence is not None:
            raise UsageError(f"--evidence {evidence}: goal 'class' has no evidence", hint="leave it out")
        return class_cases(dataset, bundle_classes, choice)

    def observe(self, cases: Sequence[Case], dataset: Dataset, target: Target) -> list[Case]:
        """Return cases of goals instance and prompt with what the target answered to their texts."""
        return observed(cases, dataset, target)

    def augment(self, samples: Sequence[str], strength: str, rng: Random) -> list[str]:
        """Leave words out and change their order at random; ``strength``: none, light, medium or strong.

        Raises: UsageError when there is no such strength.
        """
        return augment(samples, strength, rng)

    def pack(self, samples: Sequence[str]) -> dict[str, Tensor]:
        """Return texts as tensors to store: all bytes (UTF-8), and how many each text has."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in samples]
        everything = bytearray(b"".join(encoded))
        data = torch.frombuffer(everything, dtype=torch.uint8) if everything else torch.empty(0, dtype=torch.uint8)
        return {_BYTES: data, _LENGTHS: torch.tensor([len(item) for item in encoded], dtype=torch.int64)}

    def unpack(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return stored texts."""
        data, texts, start = tensors[_BYTES].numpy().tobytes(), [], 0
        for length in tensors[_LENGTHS].tolist():
            texts.append(data[start : start + length].decode("utf-8", "surrogatepass"))
            start += length
        return texts

    def join(self, parts: Sequence[Sequence[str]]) -> list[str]:
        """Return several groups of texts as one."""
        return [text for part in parts for text in part]

    def overlap(self, dataset: Dataset) -> Mapping[str, Any]:
        """Count public and holdout texts that equal or resemble private ones; see `measure_overlap`."""
        return measure_overlap(dataset)

    def export(self, samples: Mapping[str, Sequence[str]], directory: Path) -> list[Path]:
        """Write a text file with all texts of each key; return the paths.

        Raises: StorageError.
        """
        return export_texts(samples, directory)

    def show(self, samples: Sequence[str], limit: int) -> str:
        """Return a self-contained HTML fragment that shows up to ``limit`` texts."""
        return fragment(samples, limit)

    def show_blurred(self, samples: Sequence[str], limit: int) -> str:
        """Return a list of up to ``limit`` texts of which every character but spaces is masked."""
        return fragment([masked(text) for text in samples[: max(limit, 0)]], limit)

    def show_against(self, truth: Sequence[str], samples: Sequence[str], limit: int) -> str:
        """Return a fragment that shows up to ``limit`` texts with the words marked that the truth has, too."""
        return compared(truth[0], samples, limit)

    def truths(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
        """Return the private text behind each case, by case id; a whole corpus has none."""
        return text_truths(cases, dataset)

    def toy(self) -> list[ToySetting]:
        """Return the planted problems that conformance checks attack and defend."""
        from mi_text.toy import toys

        return toys()
