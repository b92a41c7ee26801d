"""The commands that a suite's rows are made of, as arguments of ``mi``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micore.report.command import settings
from micore.suites.rows import RowPlan, TargetPlan

RUN = "run"
OPTIONAL = {
    "--classes": "classes", "--evidence": "evidence", "--access": "access", "--top-k": "top_k", "--round": "round",
    "--budget-queries": "budget_queries",
}  # fmt: skip
"""Flags that a row has only if its entry says so."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where rows are made: none of it changes what is measured."""

    device: str = "auto"
    data_root: str | None = None
    tile: int | None = None


def train_arguments(plan: TargetPlan, place: Path, machine: Machine) -> list[str]:
    """Return the ``mi train`` of a target."""
    found = plan.settings
    return [
        "train", "--data", found["data"], *_each("-D", settings(found["data_options"])), "--model", found["model"],
        *_each("-p", settings(found["training"])), *_each("--defense", found["defenses"]),
        *_arithmetic(found), "--seed", str(found["seed"]), *_machine(machine), "-o", str(plan.file(place)),
    ]  # fmt: skip


def attack_arguments(plan: RowPlan, place: Path, machine: Machine) -> list[str]:
    """Return the ``mi attack`` of a row."""
    found, data = plan.settings, plan.target.settings
    chosen = [part for flag, key in OPTIONAL.items() if found[key] is not None for part in (flag, str(found[key]))]
    tile = ["--tile", str(machine.tile)] if machine.tile else []
    return [
        "attack", "--plugin", found["plugin"], "--model", str(plan.target.file(place)), "--preset", found["preset"],
        *_each("-p", settings(found["options"])), *chosen, "--data", data["data"],
        *_each("-D", settings(data["data_options"])), *_judging(plan), *_arithmetic(found),
        "--seed", str(found["seed"]), *tile, *_machine(machine), "-o", str(plan.folder(place) / RUN),
    ]  # fmt: skip


def resume_arguments(plan: RowPlan, place: Path) -> list[str]:
    """Return the ``mi resume`` of a row."""
    return ["resume", str(plan.folder(place) / RUN)]


def evaluate_arguments(plan: RowPlan, place: Path, machine: Machine) -> list[str]:
    """Return the ``mi evaluate`` of a row."""
    return ["evaluate", str(plan.folder(place) / RUN), *_judging(plan), "--device", machine.device]


def shown(arguments: Iterable[str]) -> str:
    """Return a command as a person types it."""
    return " ".join(["mi", *map(shlex.quote, arguments)])


def _judging(plan: RowPlan) -> Iterator[str]:
    judging = plan.judging
    yield from ("--judges", str(judging["judges"]))
    yield from _each("-e", judging["evaluators"] or ())


def _arithmetic(found: Mapping[str, Any]) -> list[str]:
    return ["--precision", found["precision"], *(["--compile"] if found["compiled"] else [])]


def _machine(machine: Machine) -> list[str]:
    root = ["--data-root", machine.data_root] if machine.data_root else []
    return [*root, "--device", machine.device]


def _each(flag: str, values: Sequence[str] | Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (flag, value)
