"""Registries of toy plugins: the good ones, with one of them exchanged for a broken one."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import good

from micore.hookspecs import SPEC_HOOKS, hookimpl
from micore.registry import Registry
from micore.specs import (
    AttackSpec,
    CommandSpec,
    DatasetSpec,
    DefenseSpec,
    EvaluatorSpec,
    ModalitySpec,
    ModelSpec,
    SourceSpec,
)
from micore.threat import Access

SPECS: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "modality": (ModalitySpec, good.ToyModality, {}),
    "dataset": (DatasetSpec, good.open_toy, {"modality": "toy", "bundled": True, "licence": "none"}),
    "model": (ModelSpec, good.build_toy, {"modality": "toy"}),
    "attack": (
        AttackSpec, good.GoodAttack,
        {"modality": "toy", "goal": "class", "access": Access.WHITE_BOX, "needs": ("public",)},
    ),
    "defense": (DefenseSpec, good.GoodDefense, {"stages": ("training", "inference", "monitoring")}),
    "evaluator": (EvaluatorSpec, good.GoodEvaluator, {"modality": "toy", "goals": ("class",)}),
    "source": (SourceSpec, good.load_toy, {"scheme": "toy"}),
    "command": (CommandSpec, "good:toy_command", {}),
}  # fmt: skip


KINDS = (*SPECS, "tracker")
"""A tracker is not described by itself, but by its hooks."""

OPTIONS = {"source": {"location": "here"}}
"""What a user gives to ``mi check``."""


@dataclass(frozen=True)
class Broken:
    """A toy that this check must reject, saying this."""

    kind: str
    check: str
    says: str
    implementation: Any
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its name in the list of tests."""
        what = self.implementation
        return f"{self.check}-{what if isinstance(what, str) else what.__name__}"


class Collection(list):
    """The broken toys of one kind; called, it gives the decorator that adds one."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def __call__(self, check, says="", **changes):
        def add(implementation):
            self.append(Broken(self.kind, check, says, implementation, changes))
            return implementation

        return add


def spec(kind, implementation=None, **changes):
    cls, own, values = SPECS[kind]
    implementation = implementation or own
    target = implementation if isinstance(implementation, str) else _target(implementation)
    cls = changes.pop("spec_class", cls)
    return cls(
        **{
            "name": "toy",
            "target": target,
            "summary": "A toy that does as little as it can",
            **values,
            **changes,
        }
    )


def _target(implementation):
    return f"{implementation.__module__}:{implementation.__name__}"


def plugin(*specs):
    hooks = {}
    for hook, kind in SPEC_HOOKS.items():
        if mine := [one for one in specs if isinstance(one, kind)]:
            hooks[hook] = hookimpl(specname=hook)(lambda mine=mine: mine)
    return SimpleNamespace(**hooks)


def good_registry(tracker=good.GoodTracker, **exchanged):
    toys = plugin(*(exchanged.get(kind) or spec(kind) for kind in SPECS))
    return Registry.from_plugins({"toys": toys, "tracker-toy": tracker()})


def registry_with(kind, implementation, **changes):
    """Return the good plugins, with this one in the place of the good one of its kind."""
    if kind == "tracker":
        return good_registry(tracker=implementation)
    return good_registry(**{kind: spec(kind, implementation, **changes)})
