"""Building an attack from its name and options, and those that are built around others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from micore.configs import preset_config
from micore.contracts import Attack, WrapsAttack
from micore.errors import ConfigError
from micore.registry import Entry, Registry
from micore.specs import AttackSpec


def build_attack(registry: Registry, entry: Entry, preset: str, options: Mapping[str, Any]) -> Attack:
    """Build an attack; a wrapper also gets the one that its options name.

    Raises: ConfigError for options that do not fit; UnknownNameError for a base that is not installed.
    """
    kind = registry.load(entry)
    return wrapped(registry, entry, kind(preset_config(kind, preset, options, f"attack {entry.spec.name!r}")))


def wrapped(registry: Registry, entry: Entry, attack: Attack) -> Attack:
    """Give an attack that wraps another one its base; return any other attack as it is.

    Raises: ConfigError when the base does not fit the wrapper; UnknownNameError.
    """
    if isinstance(attack, WrapsAttack):
        use = attack.base_use()
        base = registry.find("attack", use.name)
        _check_fit(entry, base, own_model=getattr(attack, "ATTACKS_OWN_MODEL", False))
        attack.wrap(build_attack(registry, base, use.preset, use.options))
    return attack


def preparer(registry: Registry, entry: Entry, attack: Attack) -> tuple[Entry, Attack]:
    """Return the attack that decides what is prepared, with its entry: the base of a wrapper that adds nothing."""
    if isinstance(attack, WrapsAttack) and not attack.PREPARE_FIELDS:
        return preparer(registry, registry.find("attack", attack.base_use().name), attack.wrapped())
    return entry, attack


def _check_fit(entry: Entry, base: Entry, *, own_model: bool) -> None:
    """Check that a wrapper declares at least what its base needs; access is its own affair to a model of its own."""
    outer, inner = entry.spec, base.spec
    if not isinstance(outer, AttackSpec) or not isinstance(inner, AttackSpec):
        raise TypeError(f"{outer.name} and {inner.name} must be attacks")
    problems = {
        f"goal {inner.goal}": (outer.modality, outer.goal) != (inner.modality, inner.goal),
        f"{inner.access.label} access": inner.access > outer.access and not own_model,
        f"needs {', '.join(inner.needs)}": not set(inner.needs) <= set(outer.needs),
        "itself": entry.provider == base.provider and outer.name == inner.name,
    }
    wrong = [text for text, holds in problems.items() if holds]
    if wrong:
        raise ConfigError(
            f"attack {outer.name!r} cannot wrap {inner.name!r}: {'; '.join(wrong)}",
            hint="`mi list-plugins --kind attack` shows goals and access of all attacks",
        )
