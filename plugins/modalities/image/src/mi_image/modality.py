"""The modality ``image``: samples are float32 tensors (N, C, H, W) in [0, 1] with 1 or 3 channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_image.adapter import ImageAdapter
from mi_image.instances import instance_cases, instance_floors, instance_truths
from mi_image.jitter import STRENGTHS
from mi_image.overlap import measure_overlap
from mi_image.previews import export_grids, html
from micore.contracts import Case, Dataset, Reconstruction, Truth
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.kit.choice import class_cases
from micore.runtime import Random

if TYPE_CHECKING:
    from micore.testing.setting import ToySetting

_KEY = "images"


class ImageModality:
    """How images fit a model, are stored and are shown (`micore.contracts.Modality`)."""

    bounds = (0.0, 1.0)

    def adapter(self, spec: InputSpec) -> ImageAdapter:
        """Return the differentiable conversion from canonical images to a model's input.

        Raises: ModelError when the spec is not that of an image model.
        """
        return ImageAdapter(spec)

    def cases(
        self,
        goal: str,
        dataset: Dataset | None,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return what a run of this goal attacks.

        class: one case per chosen class of the target, ``0-4,7``, ``cat,dog`` or ``all`` (as None).
        instance: one case per chosen private image, ``0-9,12`` or ``all``; None: `instances.SPREAD` of them. Each
        holds its image corrupted by ``evidence``, a kind of `corruptions.KINDS`; None: the first.

        Raises: UsageError when the goal is another, the classes are unknown, or choice or evidence do not fit.
        """
        if goal == "instance":
            return instance_cases(dataset, choice, evidence)
        if goal != "class":
            raise UsageError(f"goal {goal!r} is not there for images", hint="class or instance")
        if evidence is not None:
            raise UsageError(f"--evidence {evidence}: goal 'class' has no evidence", hint="leave it out")
        return class_cases(dataset, bundle_classes, choice)

    def augment(self, samples: Tensor, strength: str, rng: Random) -> Tensor:
        """Change images at random for training, each in its own way; ``strength``: none, light, medium or strong.

        Raises: UsageError when there is no such strength.
        """
        if strength not in STRENGTHS:
            raise UsageError(f"augmentation {strength!r} is unknown", hint="one of " + ", ".join(STRENGTHS))
        jitter = STRENGTHS[strength]
        return samples if jitter is None else jitter(samples, rng)

    def pack(self, samples: Tensor) -> dict[str, Tensor]:
        """Return images as tensors to store, exactly."""
        return {_KEY: samples.detach().cpu().contiguous()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return stored images."""
        return tensors[_KEY]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return several groups of images, at least one, as one."""
        return torch.cat(list(parts))

    def overlap(self, dataset: Dataset) -> Mapping[str, Any]:
        """Count public and holdout images that equal or resemble private ones; see `measure_overlap`."""
        return measure_overlap(dataset)

    def export(self, samples: Mapping[str, Tensor], directory: Path) -> list[Path]:
        """Write a PNG with all images of each key; return the paths.

        Raises: StorageError.
        """
        return export_grids(samples, directory)

    def show(self, samples: Tensor, limit: int) -> str:
        """Return a self-contained HTML fragment that shows up to ``limit`` images."""
        return html(samples, limit)

    def truths(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
        """Return the private image behind each case of goal ``instance`` and its class, by case id."""
        return instance_truths(cases, dataset)

    def floors(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
        """Return ``evidence``, the corrupted images, and ``nearest-public``, completions by public images."""
        return instance_floors(cases, dataset)

    def toy(self) -> list[ToySetting]:
        """Return the planted problems that conformance checks attack and defend: classes, then instances."""
        from mi_image.toy import image_toy, masked_toy

        return [image_toy(), masked_toy()]
