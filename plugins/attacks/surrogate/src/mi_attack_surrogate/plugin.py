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
            name="surrogate",
            target="mi_attack_surrogate.attack:Surrogate",
            summary="Adaptive: a student learns the target's answers to public images, a white-box attack the student",
            modality="image",
            goal="class",
            access=Access.LABEL,
            needs=("public",),
        )
    ]
