"""The one data-set class that all openers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch

from mi_image.datasets.pools import Pool
from mi_image.splits import ImageSplit
from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec

JUDGED_SHARE = 0.8
"""Share of the images of classes that are not private on which evaluator models are trained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDataset:
    """Private, holdout and public images of one setting (`micore.contracts.Dataset`).

    private, holdout: with the same classes. public: without labels, as the adversary has it.
    others: labelled images of further classes, so that an evaluator can say "looks like a 7".

    Raises: DataError when a split is empty, or the sizes of the images differ.
    """

    modality: ClassVar[str] = "image"

    name: str
    private: Pool
    holdout: Pool | None
    public: ImageSplit | None
    others: Pool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.private.images.shape[1:]
        for name, part in (("private", self.private), ("holdout", self.holdout), ("public", self.public)):
            if part is not None and len(part) == 0:
                raise DataError(f"{self.name}: no {name} images")
            if part is not None and part.images.shape[1:] != shape:
                raise DataError(
                    f"{self.name}: {name} images are {tuple(part.images.shape[1:])}, private {tuple(shape)}"
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the private classes, by label."""
        return self.private.classes

    @property
    def input(self) -> InputSpec:
        """What a model trained on it takes: [0, 1] becomes [-1, 1]."""
        channels, height, width = self.private.images.shape[1:]
        return InputSpec(shape=(channels, height, width), mean=(0.5,) * channels, std=(0.5,) * channels)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        parts = {name: split.fingerprint for name, split in self._splits.items()}
        return digest(self.modality, list(self.classes), parts)

    @cached_property
    def _splits(self) -> dict[str, ImageSplit]:
        splits = {"private": self.private.labelled()}
        if self.holdout is not None:
            splits["holdout"] = self.holdout.labelled()
        if self.public is not None:
            splits["public"] = self.public
        return splits

    def split(self, name: str) -> ImageSplit:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError when the data set has none of this name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[ImageSplit, tuple[str, ...]]:
        """Return what evaluator models learn: private images, then the others under further labels."""
        if self.others is None:
            return self.split("private"), self.classes
        images = torch.cat([self.private.images, self.others.images])
        labels = torch.cat([self.private.labels, self.others.labels + len(self.classes)])
        return ImageSplit(images, labels), self.classes + self.others.classes


def judged_others(pool: Pool, private: list[int], *key: object) -> Pool | None:
    """Return `JUDGED_SHARE` of the images of all classes that are not private, or None when all are."""
    others = [label for label in range(len(pool.classes)) if label not in private]
    if not others:
        return None
    (judged,) = pool.divide({label: (JUDGED_SHARE,) for label in others}, *key)
    return judged.keep(others)
