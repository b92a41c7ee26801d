"""From a suite to its rows: what each trains and attacks, and where that lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from micore.errors import UsageError
from micore.files import safe_name
from micore.suites.suite import AttackEntry, DefenseEntry, Suite, TargetEntry, asked

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What the command line says of arithmetic: a part of every row that does not say it itself."""

    name: str = "fp32"
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """One target to train: an entry with its defenses and a seed."""

    entry: TargetEntry
    defense: DefenseEntry
    seed: int
    arithmetic: Precision

    @property
    def name(self) -> str:
        """A name of its own."""
        return f"{self.entry.name}/{self.defense.name}/{self.seed}"

    def file(self, place: Path) -> Path:
        """Return the bundle's path in the directory of a benchmark."""
        return place / "targets" / f"{safe_name(self.name)}.safetensors"

    @property
    def settings(self) -> Settings:
        """Everything that its training depends on."""
        return {
            "data": self.entry.data, "data_options": dict(self.entry.data_options), "model": self.entry.model,
            "training": dict(self.entry.training), "defenses": list(self.defense.uses), "seed": self.seed,
            "precision": self.entry.precision or self.arithmetic.name, "compiled": self.arithmetic.compiled,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """One row: an attack on a trained target. budget: queries that it ends after."""

    target: TargetPlan
    attack: AttackEntry
    judges: int
    budget: int | None = None

    @property
    def name(self) -> str:
        """The row's name: target, defense, attack, seed."""
        return "/".join(self.parts)

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The names that the row's is made of."""
        target = self.target
        label = self.attack.label if self.budget is None else f"{self.attack.label}, {self.budget} queries"
        return target.entry.name, target.defense.name, label, str(target.seed)

    def folder(self, place: Path) -> Path:
        """Return the row's folder in the directory of a benchmark."""
        return place / "rows" / safe_name(self.name)

    @property
    def settings(self) -> Settings:
        """Everything that its reconstructions depend on, besides the target."""
        attack, arithmetic = self.attack, self.target.arithmetic
        return {
            "plugin": attack.plugin, "preset": attack.preset, "options": dict(attack.options),
            "classes": attack.classes, "evidence": attack.evidence, "access": attack.access, "seed": self.target.seed,
            "precision": attack.precision or arithmetic.name, "compiled": arithmetic.compiled,
            "top_k": attack.top_k, "round": attack.round, "budget_queries": self.budget,
        }  # fmt: skip

    @property
    def judging(self) -> Settings:
        """How it is judged: this alone may change without another attack."""
        evaluators = None if self.attack.evaluators is None else list(self.attack.evaluators)
        return {"judges": self.judges, "evaluators": evaluators}

    @property
    def all_settings(self) -> dict[str, Settings]:
        """What tells whether a row is still the one that was run."""
        return {"target": self.target.settings, "attack": self.settings, "judging": self.judging}


def plan_rows(suite: Suite, arithmetic: Precision | None = None) -> list[RowPlan]:
    """Return all rows, target by target."""
    return list(_rows(suite, arithmetic or Precision()))


def _rows(suite: Suite, arithmetic: Precision) -> Iterator[RowPlan]:
    for target in suite.targets:
        for defense in (entry for entry in suite.defenses if asked(target.name, entry.targets)):
            for attack in suite.attacks:
                if not asked(target.name, attack.targets) or not asked(defense.name, attack.defenses):
                    continue
                for seed in attack.seeds or suite.seeds:
                    plan = TargetPlan(entry=target, defense=defense, seed=seed, arithmetic=arithmetic)
                    for budget in attack.budget_queries or (None,):
                        yield RowPlan(target=plan, attack=attack, judges=suite.judges, budget=budget)


def select(rows: Sequence[RowPlan], patterns: Sequence[str]) -> list[RowPlan]:
    """Return the rows whose name, or a part of it, fits one of the patterns; all without patterns.

    Raises: UsageError for a pattern that fits none.
    """
    for pattern in patterns:
        if not any(_fits(row, pattern) for row in rows):
            raise UsageError(f"no row fits --only {pattern!r}", hint="rows: " + _some([row.name for row in rows]))
    return [row for row in rows if not patterns or any(_fits(row, pattern) for pattern in patterns)]


def _fits(row: RowPlan, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (row.name, *row.parts[:3]))


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the settings that differ, each with its old and new value."""
    found = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} {before!r} -> {after!r}")
    return found
