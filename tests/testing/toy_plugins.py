"""Registries of toy plugins: the good ones, with one of them exchanged for a broken one."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import good

from micore.hookspecs import SPEC_HOOKS, hookimpl
from micore.registry import Registry
from micore.specs import AttackSpec, DatasetSpec, DefenseSpec, EvaluatorSpec, ModalitySpec, ModelSpec
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
}  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """A toy that this check must reject, saying this."""

    kind: str
    check: str
    says: str
    implementation: Any
    changes: dict[str, Any] = field(default_factory=dict)


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
    target = f"{implementation.__module__}:{implementation.__name__}"
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


def plugin(*specs):
    hooks = {}
    for hook, kind in SPEC_HOOKS.items():
        if mine := [one for one in specs if isinstance(one, kind)]:
            hooks[hook] = hookimpl(specname=hook)(lambda mine=mine: mine)
    return SimpleNamespace(**hooks)


def good_registry(**exchanged):
    return Registry.from_plugins({"toys": plugin(*(exchanged.get(kind) or spec(kind) for kind in SPECS))})
