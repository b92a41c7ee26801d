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
            name="inverse-net",
            target="mi_attack_inverse_net.attack:InverseNetwork",
            summary="Inversion by training: a decoder learns on public images what the target's scores look like",
            paper="Yang et al., CCS 2019",
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        )
    ]
