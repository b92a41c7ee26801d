"""A planted toy problem of plain grids of numbers, for tests of the core and of the checks themselves.

Every class has a bright spot at a place of its own; the public data have spots anywhere. So a target can
really be inverted, a prior trained on public data can reach the answer, and a judge can tell by
correlating with the planted templates, without any model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from micore.artifacts import PluginUse
from micore.contracts import Case, Config, Samples
from micore.errors import DataError, ModelError, UsageError
from micore.files import digest
from micore.inputs import InputSpec
from micore.runtime import Random, derive_seed
from micore.testing.setting import ToySetting, tensor_problem

STRENGTHS = {"none": 0.0, "light": 0.05, "medium": 0.1, "strong": 0.15}


# the planted data -----------------------------------------------------------------------------------------


def class_places(n_classes: int, turn: float = 0.0) -> Tensor:
    """Return one place per class on a ring, (n, 2) in [0, 1]; ``turn`` in steps between two classes."""
    angles = 2 * math.pi * (torch.arange(n_classes) + turn) / n_classes
    return 0.5 + 0.27 * torch.stack([angles.sin(), angles.cos()], dim=1)


def spots(places: Tensor, size: int, width: float = 0.13) -> Tensor:
    """Draw a bright spot of this width at each place (N, 2): grids (N, 1, size, size) in [0, 1]."""
    axis = (torch.arange(size) + 0.5) / size
    rows, columns = (axis[None] - places[:, :1]) ** 2, (axis[None] - places[:, 1:]) ** 2
    squares = rows[:, :, None] + columns[:, None, :]
    return torch.exp(-squares / (2 * width**2)).unsqueeze(1)


def spotted(places: Tensor, size: int, rng: Random) -> Tensor:
    """Draw a natural sample around each place (N, 2): moved a little, dimmed and noisy."""
    moved = places + 0.03 * rng.normal(places.shape)
    brightness = 0.7 + 0.3 * rng.uniform((len(places), 1, 1, 1))
    noise = 0.05 * rng.normal((len(places), 1, size, size))
    return (brightness * spots(moved, size) + noise).clamp(0, 1)


def planted(n_classes: int, per_class: int, size: int, rng: Random, turn: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return samples of planted classes (N, 1, size, size) and their labels (N,)."""
    labels = torch.arange(n_classes).repeat_interleave(per_class)
    return spotted(class_places(n_classes, turn)[labels], size, rng), labels


def anywhere(n: int, size: int, rng: Random) -> Tensor:
    """Return samples with spots at random places: what an adversary has."""
    return spotted(0.15 + 0.7 * rng.uniform((n, 2)), size, rng)


def template_contrast(samples: Tensor, label: int, n_classes: int) -> Tensor:
    """Judge samples (n, C, size, size): correlation with the class's template above that with the others."""
    grids = samples.detach().cpu().double().mean(dim=1).flatten(1)
    return contrast(grids, spots(class_places(n_classes), samples.shape[-1]).double().flatten(1), label)


def contrast(rows: Tensor, templates: Tensor, label: int) -> Tensor:
    """Return for rows (n, d) half of the correlation with one of the templates (K, d) above that with the others."""
    correlations = _unit(rows) @ _unit(templates).T
    others = (correlations.sum(dim=1) - correlations[:, label]) / (len(templates) - 1)
    return (correlations[:, label] - others) / 2


def _unit(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=1, keepdim=True)
    norms: Tensor = centred.norm(dim=1, keepdim=True)
    return centred / norms.clamp_min(1e-9)


# the data set ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ToySplit:
    """Samples (N, 1, size, size) in [0, 1], with labels (N,) or None (`contracts.Split`)."""

    samples: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int] | Tensor) -> Samples:
        """Return copies of these samples."""
        return self.samples[torch.as_tensor(indices, dtype=torch.int64)].clone()


class ToyOptions(Config):
    """Options of the toy data."""

    size: int = Field(8, ge=4, description="height and width of the grids")
    n_classes: int = Field(4, ge=2, description="private classes")
    per_class: int = Field(24, ge=2, description="private samples of each class")
    seed: int = Field(0, description="of all samples")


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyDataset:
    """Planted private, held-out and public grids (`contracts.Dataset`)."""

    settings: ToyOptions = field(default_factory=lambda: ToyOptions.model_validate({}))
    name: str = "toy-grids"
    modality: str = "toy"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the private classes."""
        return tuple(f"spot-{label}" for label in range(self.settings.n_classes))

    @property
    def options(self) -> Mapping[str, Any]:
        """What opens it again."""
        return self.settings.model_dump()

    @property
    def input(self) -> InputSpec:
        """One channel; [0, 1] becomes [-1, 1]."""
        return InputSpec(shape=(1, self.settings.size, self.settings.size), mean=(0.5,), std=(0.5,))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        parts = [(name, split.samples.numpy().tobytes()) for name, split in self._splits.items()]
        return digest(list(self.classes), *[part for pair in parts for part in pair])

    @cached_property
    def _splits(self) -> dict[str, ToySplit]:
        size, n = self.settings.size, self.settings.n_classes
        parts = {
            name: ToySplit(*planted(n, count, size, self._rng(name)))
            for name, count in (("private", self.settings.per_class), ("holdout", 8))
        }
        return {**parts, "public": ToySplit(anywhere(96, size, self._rng("public")))}

    def _rng(self, purpose: str) -> Random:
        return Random(derive_seed(self.settings.seed, purpose))

    def split(self, name: str) -> ToySplit:
        """Return ``private``, ``holdout`` or ``public``; DataError for another."""
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[ToySplit, tuple[str, ...]]:
        """Return private samples, then as many further classes with spots between the private ones."""
        private, n = self.split("private"), self.settings.n_classes
        samples, labels = planted(n, self.settings.per_class, self.settings.size, self._rng("others"), turn=0.5)
        own = private.labels if private.labels is not None else labels
        joined = ToySplit(torch.cat([private.samples, samples]), torch.cat([own, labels + n]))
        return joined, self.classes + tuple(f"other-{label}" for label in range(n))


def open_toy(location: str | None, **options: Any) -> ToyDataset:
    """Open the toy data. Raises: DataError for an unknown or bad option."""
    if location is not None:
        raise DataError(f"toy-grids takes no location, but {location!r} was given")
    try:
        return ToyDataset(settings=ToyOptions(**options))
    except ValidationError as error:
        raise DataError(f"toy-grids: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error


# the modality ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyAdapter:
    """Normalise grids as the model wants them; differentiable."""

    spec: InputSpec

    def __call__(self, samples: Tensor) -> Tensor:
        """Convert samples."""
        if not self.spec.mean:
            return samples
        return (samples - self.spec.mean[0]) / self.spec.std[0]


class ToyModality:
    """Grids of numbers in [0, 1] (`contracts.Modality`)."""

    bounds = (0.0, 1.0)

    def adapter(self, spec: InputSpec) -> ToyAdapter:
        """Return the conversion to a model's input."""
        return ToyAdapter(spec)

    def cases(
        self,
        goal: str,
        dataset: Any,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return one case per class; ``choice`` is a list of labels such as ``0,2``; there is no evidence."""
        texts = choice.split(",") if choice else [str(label) for label in range(len(bundle_classes))]
        known = all(text.isdigit() and int(text) < len(bundle_classes) for text in texts)
        if goal != "class" or evidence is not None or not known:
            raise UsageError(f"no such cases: goal {goal!r}, choice {choice!r}, evidence {evidence!r}")
        return [Case(id=f"class-{text}", goal=goal, label=int(text)) for text in texts]

    def augment(self, samples: Tensor, strength: str, rng: Random) -> Tensor:
        """Add a little noise."""
        if strength == "none":
            return samples
        return (samples + STRENGTHS[strength] * rng.normal(samples.shape)).clamp(0, 1)

    def pack(self, samples: Tensor) -> dict[str, Tensor]:
        """Return samples as tensors to store."""
        return {"grids": samples.detach().cpu()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return stored samples."""
        return tensors["grids"]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return several groups as one."""
        return torch.cat(list(parts))

    def overlap(self, dataset: Any) -> Mapping[str, Any]:
        """Count public samples that are private too."""
        private, public = dataset.split("private").samples, dataset.split("public").samples
        equal = (public.flatten(1)[:, None] == private.flatten(1)[None]).all(dim=2).any(dim=1)
        return {"equal": int(equal.sum()), "public": len(public)}

    def export(self, samples: Mapping[str, Tensor], directory: Path) -> list[Path]:
        """Write a text file for each key."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{key}.txt" for key in samples]
        for path, grids in zip(paths, samples.values(), strict=True):
            path.write_text(str(grids.tolist()), encoding="utf-8")
        return paths

    def show(self, samples: Tensor, limit: int) -> str:
        """Return the samples' means as HTML."""
        means = ", ".join(f"{float(grid.mean()):.3f}" for grid in samples[:limit])
        return f"<code>{means}</code>"

    def toy(self) -> ToySetting:
        """Return the toy problem."""
        return toy_setting()


# models and the setting -----------------------------------------------------------------------------------


def build_toy(n_classes: int, input_spec: InputSpec, **arguments: Any) -> nn.Module:
    """Build a convolution with a linear head. Raises: ModelError for an input that is no grid."""
    size, width = _grid_size(n_classes, input_spec), _width(arguments, 8)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(width * (size // 2) ** 2, n_classes),
    )  # fmt: skip


def build_other_toy(n_classes: int, input_spec: InputSpec, **arguments: Any) -> nn.Module:
    """Build a perceptron: another architecture, to judge."""
    size, width = _grid_size(n_classes, input_spec), _width(arguments, 32)
    return nn.Sequential(nn.Flatten(), nn.Linear(size**2, width), nn.Tanh(), nn.Linear(width, n_classes))


def _width(arguments: dict[str, Any], default: int) -> int:
    if arguments.keys() - {"width"}:
        raise ModelError(f"toy models take a width, not {', '.join(arguments)}")
    return int(arguments.get("width", default))


def _grid_size(n_classes: int, input_spec: InputSpec) -> int:
    shape = input_spec.shape
    if n_classes < 1 or len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or shape[1] < 4:
        raise ModelError(f"toy models take (1, size, size) from size 4, not {shape} for {n_classes} classes")
    return int(shape[1])


def toy_setting(*, size: int = 8, n_classes: int = 4, seed: int = 0) -> ToySetting:
    """Return the planted problem of grids."""
    dataset = ToyDataset(settings=ToyOptions.model_validate({"size": size, "n_classes": n_classes, "seed": seed}))
    shape = dataset.input.shape
    return ToySetting(
        modality="toy",
        dataset=dataset,
        model=PluginUse(name="toy"),
        build=build_toy,
        judge_model=PluginUse(name="other-toy"),
        judge_build=build_other_toy,
        judge=lambda case, samples: template_contrast(samples, case.label or 0, n_classes),
        problem=lambda samples: tensor_problem(samples, shape, 0.0, 1.0),
        noise=lambda n, rng: rng.uniform((n, *shape)),
        inputs=(dataset.input,),
    )
