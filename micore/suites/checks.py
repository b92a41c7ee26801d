"""Checking a suite against the installed plugins, so that no row fails after hours for a typing error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from micore.artifacts import PluginUse
from micore.configs import make_config, parse_use, preset_config, with_evidence
from micore.errors import MiError, RuntimeUnavailable, UsageError
from micore.kit.training import TrainingConfig
from micore.models import load_defenses
from micore.registry import Registry
from micore.runs.evaluation import check_panel, chosen_evaluators
from micore.runs.session import attack_spec
from micore.runtime import PRECISIONS
from micore.specs import ANY
from micore.suites.suite import AttackEntry, DefenseEntry, Suite, TargetEntry, asked
from micore.threat import Access
from micore.training import target_role

_FITTING = "name the targets that it fits: targets = [...]"


def check_suite(registry: Registry, path: Path, suite: Suite) -> None:
    """Check every name and setting that can be checked without data and targets.

    Raises: MiError that names the file and the entry, of the class that `mi train` or `mi attack` would raise.
    """
    for target in suite.targets:
        with _told(path, "target", target.name):
            _check_target(registry, target)
    for defense in suite.defenses:
        with _told(path, "defense", defense.name):
            _check_defense(registry, suite, defense)
    for attack in suite.attacks:
        with _told(path, "attack", attack.label):
            _check_attack(registry, suite, attack)


@contextmanager
def _told(path: Path, kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except MiError as error:
        raise type(error)(f"{path}, [[{kind}]] {name!r}: {error.message}", hint=error.hint) from error


def _check_target(registry: Registry, target: TargetEntry) -> None:
    registry.find("dataset", target.data.partition(":")[0])
    name, _ = parse_use(target.model)
    registry.find("model", name)
    make_config(TrainingConfig, dict(target.training), "training")
    check_precision(target.precision)


def _check_defense(registry: Registry, suite: Suite, defense: DefenseEntry) -> None:
    uses = [PluginUse(name=name, config=config) for name, config in map(parse_use, defense.uses)]
    for target in suite.targets:
        if asked(target.name, defense.targets):
            load_defenses(registry, uses, _modality(registry, target), _role(registry, target))


def _modality(registry: Registry, target: TargetEntry) -> str:
    return str(registry.find("dataset", target.data.partition(":")[0]).spec.modality)  # type: ignore[attr-defined]


def _role(registry: Registry, target: TargetEntry) -> str:
    return target_role(registry, PluginUse(name=parse_use(target.model)[0]))


def _check_attack(registry: Registry, suite: Suite, attack: AttackEntry) -> None:
    entry = registry.find("attack", attack.plugin)
    spec, kind = attack_spec(entry), registry.load(entry)
    options = with_evidence(kind, attack.options, attack.evidence)
    preset_config(kind, attack.preset, options, f"attack {spec.name!r}")
    check_precision(attack.precision)
    if attack.access is not None and Access.parse(attack.access) < spec.access:
        raise UsageError(f"attack {spec.name!r} needs {spec.access.label} access, not {attack.access}")
    uses = [PluginUse(name=name, config=config) for name, config in map(parse_use, attack.evaluators or ())]
    check_panel(chosen_evaluators(registry, spec.modality, spec.goal, uses), suite.judges)
    for target in suite.targets:
        if asked(target.name, attack.targets):
            modality = _modality(registry, target)
            if modality not in (spec.modality, ANY):
                raise UsageError(
                    f"attack {spec.name!r} is for modality {spec.modality}; target {target.name!r} is {modality}",
                    hint=_FITTING,
                )
            if (role := _role(registry, target)) not in spec.roles:
                raise UsageError(
                    f"attack {spec.name!r} attacks {' and '.join(spec.roles)} targets; {target.name!r} is a {role}",
                    hint=_FITTING,
                )


def check_precision(precision: str | None) -> None:
    """Check that there is such a precision; None stands for none.

    Raises: RuntimeUnavailable.
    """
    if precision is not None and precision not in PRECISIONS:
        raise RuntimeUnavailable(f"unknown precision {precision!r}", hint="one of " + ", ".join(PRECISIONS))
