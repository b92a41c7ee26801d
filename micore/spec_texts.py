"""Specs in words: what a table, a report or a JSON document says of a plugin."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from micore.specs import ANY, ModalitySpec, Spec
from micore.threat import Access

if TYPE_CHECKING:
    from micore.registry import Entry


def modality_of(spec: Spec) -> str:
    """Return the modality that a spec belongs to, or ``any``."""
    return spec.name if isinstance(spec, ModalitySpec) else str(getattr(spec, "modality", ANY))


def aim_of(spec: Spec) -> str:
    """Return the goal of an attack or evaluator, the roles of a model, the stages of a defense..."""
    if hasattr(spec, "goal"):
        return str(spec.goal)
    if hasattr(spec, "scheme"):
        return f"{spec.scheme}:"
    for field in ("goals", "stages", "splits", "roles"):
        if hasattr(spec, field):
            return ", ".join(getattr(spec, field))
    return ""


def access_of(spec: Spec) -> str:
    """Return the least access of an attack, such as ``white-box``; empty for everything else."""
    access = getattr(spec, "access", None)
    return access.label if isinstance(access, Access) else ""


def status_of(spec: Spec) -> str:
    """Return how far a plugin was checked, and of an attack that gains nothing here, that."""
    if getattr(spec, "below_floors", False):
        return f"{spec.status}, recovers no more than its evidence gives without a target"
    return spec.status


def describe(entry: Entry) -> dict[str, Any]:
    """Return the JSON form of a plugin: its spec and who provides it."""
    spec, provider = entry.spec, entry.provider
    values = {field.name: _plain(getattr(spec, field.name)) for field in fields(spec)}
    return {"kind": spec.kind, **values, "distribution": provider.distribution, "version": provider.version}


def _plain(value: Any) -> Any:
    if isinstance(value, Access):
        return value.label
    return list(value) if isinstance(value, tuple) else value
