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
            name="c2f-mi",
            target="mi_attack_c2f_mi.attack:CoarseToFine",
            summary="C2F-MI: a StyleGAN's codes by an inverse of the target's scores, then differential evolution",
            paper="Ye et al., IEEE TDSC 2023",
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        )
    ]
