"""Descriptions that plugins hand to the core: frozen, printable, free of torch.

A spec names its implementation by an import string (``"package.module:Name"``) which the registry
resolves on first use, so listing plugins never imports one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from micore.threat import Access

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

GOALS = ("class", "instance", "corpus", "prompt", "structure", "attribute")
ROLES = (
    "classifier", "encoder", "language-model", "masked-language-model", "recogniser", "gnn", "prior", "evaluator",
)  # fmt: skip
STAGES = ("data", "training", "inference", "monitoring")
ANY = "any"


def _require(condition: bool, spec: object, message: str) -> None:
    if not condition:
        raise ValueError(f"{type(spec).__name__}: {message}")


def _require_subset(values: tuple[str, ...], allowed: tuple[str, ...], spec: object, field: str) -> None:
    unknown = [value for value in values if value not in allowed]
    _require(not unknown, spec, f"{field} {unknown} not in {list(allowed)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What every kind of plugin says about itself.

    Attributes:
        name: What the user calls it by, such as ``my-attack``.
        target: Import string of the implementation, ``"package.module:Name"``, resolved on first use.
        summary: What it does, in one line.
        paper: Where it comes from: authors, venue, year.
        status: ``verified`` once tests show on real data that it does what it says (which is not to say that a
            paper's figures were reached), ``experimental`` before.
    """

    kind: ClassVar[str]

    name: str
    target: str
    summary: str
    paper: str | None = None
    status: Literal["experimental", "verified"] = "experimental"

    def __post_init__(self) -> None:
        _require(bool(NAME.fullmatch(self.name)), self, f"name {self.name!r} must be like 'my-name'")
        _require(bool(TARGET.fullmatch(self.target)), self, f"target {self.target!r} must be 'module:Name'")
        one_line = bool(self.summary.strip()) and "\n" not in self.summary
        _require(one_line, self, "summary must be one line")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalitySpec(Spec):
    """A sample type: how it is stored, shown and fitted to a model.

    Attributes:
        default_dataset: The data set that ``mi quickstart`` takes.
        default_model: The architecture that it trains.
        default_attack: The attack that it shows.
    """

    kind: ClassVar[str] = "modality"
    default_dataset: str | None = None
    default_model: str | None = None
    default_attack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set with its splits.

    Attributes:
        modality: Its sample type.
        splits: What it offers, of ``private``, ``holdout``, ``public``.
        bundled: Whether it needs no file of the user's.
        licence: Of the data, such as ``CC-BY-4.0``.
    """

    kind: ClassVar[str] = "dataset"
    modality: str
    splits: tuple[str, ...] = ("private", "holdout", "public")
    bundled: bool = False
    licence: str

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _require_subset(self.splits, ("private", "holdout", "public"), self, "splits")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Spec):
    """An architecture.

    Attributes:
        modality: What it takes.
        roles: What it can be, of `ROLES`. With ``evaluator`` it may be trained as a judge.
        training: Options of the training where the usual defaults do not suit it.
    """

    kind: ClassVar[str] = "model"
    modality: str
    roles: tuple[str, ...] = ("classifier",)
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _require_subset(self.roles, ROLES, self, "roles")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec(Spec):
    """A URI scheme that targets are loaded from.

    Attributes:
        scheme: What stands before the colon, such as ``hub`` for ``--model hub:name``; at least two letters.
    """

    kind: ClassVar[str] = "source"
    scheme: str

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _require(bool(SCHEME.fullmatch(self.scheme)), self, f"scheme {self.scheme!r} is not a URI scheme")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec(Spec):
    """An attack: the least access it works with and what else it needs.

    Attributes:
        modality: What it recovers samples of.
        goal: What is recovered, one of `GOALS`.
        access: The least that it works with, of `micore.threat.Access`.
        needs: What a run must have besides the target, of ``public`` (public data), ``prior``, ``evidence``.
        roles: Of the targets that it can attack, of `ROLES`.
        control: Whether it is a negative control, run beside other attacks.
        below_floors: Whether it is published, and known here to recover no more than its evidence gives without a
            target; it is kept to be compared with.
    """

    kind: ClassVar[str] = "attack"
    modality: str
    goal: str
    access: Access
    needs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("classifier",)
    control: bool = False
    below_floors: bool = False

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _require_subset((self.goal,), GOALS, self, "goal")
        _require(bool(self.roles), self, "roles must not be empty")
        _require_subset(self.roles, ROLES, self, "roles")
        _require(isinstance(self.access, Access), self, f"access {self.access!r} is not an Access")


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenseSpec(Spec):
    """A defense and the stages at which it acts.

    Attributes:
        modality: Of the targets that it can defend, or ``any``.
        stages: When it acts, of `STAGES`.
        roles: Of the targets that it can defend, of `ROLES`.
        claims: Parts that it replaces and no other defense may: ``head``, ``task-loss``, ``batches``, ``optimizer``,
            ``shortcuts``, ``initialisation``, or a name of your own. Two defenses that claim the same part exclude
            each other.
    """

    kind: ClassVar[str] = "defense"
    modality: str = ANY
    stages: tuple[str, ...]
    roles: tuple[str, ...] = ("classifier",)
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _require(bool(self.stages), self, "stages must not be empty")
        _require(bool(self.roles), self, "roles must not be empty")
        _require_subset(self.roles, ROLES, self, "roles")
        _require_subset(self.stages, STAGES, self, "stages")
        _require(all(NAME.fullmatch(claim) for claim in self.claims), self, f"claims {self.claims} must be like 'head'")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSpec(Spec):
    """An evaluator.

    Attributes:
        modality: What it judges, or ``any``.
        goals: Of the attacks that it judges, of `GOALS`.
        needs: What it must be given, of ``evaluator-model`` (it runs once for each of the run's), ``evaluator-models``
            (all together, at least three: it runs once), ``private``, ``truth``, ``label`` (the class of each case),
            ``ranking`` (all candidates of a case in order), ``weights`` (a file of the user's), ``endpoint`` (an
            address of the user's).
        default: Whether it runs after every attack that it fits.
    """

    kind: ClassVar[str] = "evaluator"
    modality: str
    goals: tuple[str, ...]
    needs: tuple[str, ...] = ()
    default: bool = False

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _require_subset(self.goals, GOALS, self, "goals")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec(Spec):
    """An extra ``mi`` command."""

    kind: ClassVar[str] = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerSpec(Spec):
    """A plugin that observes runs. No hook returns it: the registry makes one of whatever observes."""

    kind: ClassVar[str] = "tracker"


KINDS: dict[str, type[Spec]] = {
    spec.kind: spec
    for spec in (
        ModalitySpec, DatasetSpec, ModelSpec, SourceSpec, AttackSpec, DefenseSpec, EvaluatorSpec, TrackerSpec,
        CommandSpec,
    )
}  # fmt: skip
