"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attack."""
    return [
        AttackSpec(
            name="trap-aware",
            target="mi_attack_trap_aware.attack:TrapAware",
            summary="Wraps an attack: finds a trigger for each class, and keeps the search away from their features",
            paper="adaptive attack on Trap-MID (Liu and Chen, NeurIPS 2024), after Wang et al., IEEE S&P 2019",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="experimental",
        )
    ]
