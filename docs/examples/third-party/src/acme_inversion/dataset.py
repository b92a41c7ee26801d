"""Drawn rings: a class is a radius. Public rings have radii between those of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec
from micore.kit.dataset_options import DatasetOptions, read_options, refuse_location
from micore.runtime import Random, derive_seed

SIZE, N_HOLDOUT, N_PUBLIC = 16, 12, 200


class RingsOptions(DatasetOptions):
    """What a user may set."""

    n_classes: int = Field(4, ge=2, le=6, description="Private classes")
    per_class: int = Field(40, ge=2, description="Private samples of each class")
    seed: int = Field(0, ge=0, description="Of all that is drawn")


@dataclass(frozen=True, eq=False)
class Rings:
    """Pictures (N, 1, SIZE, SIZE) in [0, 1], with labels (N,), int64, or None."""

    samples: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return copies of these pictures, on the CPU."""
        return self.samples[torch.as_tensor(indices, dtype=torch.int64)].clone()


@dataclass(frozen=True, eq=False)
class AcmeRings:
    """Private, held-out and public rings (`micore.contracts.Dataset`)."""

    settings: RingsOptions
    name: str = "acme-rings"
    modality: str = "image"

    @property
    def input(self) -> InputSpec:
        """What a model trained on it takes: one channel; [0, 1] becomes [-1, 1]."""
        return InputSpec(shape=(1, SIZE, SIZE), mean=(0.5,), std=(0.5,))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the private classes, by label."""
        return tuple(f"ring-{label}" for label in range(self.settings.n_classes))

    @property
    def options(self) -> Mapping[str, Any]:
        """What opens it again."""
        return self.settings.model_dump(mode="json")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        parts = [(name, part.samples.numpy().tobytes()) for name, part in self._splits.items()]
        return digest(self.name, list(self.classes), *[item for pair in parts for item in pair])

    @cached_property
    def _splits(self) -> dict[str, Rings]:
        n, each = self.settings.n_classes, self.settings.per_class
        own = {
            name: self._rings(name, torch.arange(n).repeat_interleave(count))
            for name, count in (("private", each), ("holdout", N_HOLDOUT))
        }
        return {**own, "public": Rings(self._rings("public", torch.arange(N_PUBLIC) % n + 0.5).samples, None)}

    def _rings(self, purpose: str, places: Tensor) -> Rings:
        """Draw a ring for each place, whole numbers being the classes: moved a little, dimmed and noisy."""
        rng = Random(derive_seed(self.name, self.settings.seed, purpose))
        axis = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
        centres = 0.03 * rng.normal((len(places), 2))
        rows, columns = axis - centres[:, :1], axis - centres[:, 1:]
        distances = (rows.square()[:, :, None] + columns.square()[:, None, :]).sqrt()
        radii = 0.1 + 0.3 * places / self.settings.n_classes + 0.01 * rng.normal((len(places),))
        bright = 0.7 + 0.3 * rng.uniform((len(places), 1, 1))
        drawn = bright * (-(((distances - radii[:, None, None]) / 0.05) ** 2)).exp()
        noisy = (drawn + 0.03 * rng.normal(drawn.shape)).clamp(0, 1)
        return Rings(noisy[:, None], None if places.is_floating_point() else places)

    def split(self, name: str) -> Rings:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError for another name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[Rings, tuple[str, ...]]:
        """Return what evaluator models learn."""
        return self.split("private"), self.classes


def open_rings(location: str | None, **options: Any) -> AcmeRings:
    """Open the data set with the user's options (``-D n_classes=3``).

    Raises: DataError for a location, which it does not take, or an unknown or bad option.
    """
    refuse_location("acme-rings", location)
    return AcmeRings(read_options(RingsOptions, "acme-rings", options))
