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
            name="smile",
            target="mi_attack_smile.attack:SurrogateGuided",
            summary="In the manner of SMILE: a surrogate of 2,000 queries to start from, then CMA-ES within 2,500",
            paper="SMILE, CVPR 2025",
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        )
    ]
