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
            name="ppdg-mi",
            target="mi_attack_ppdg_mi.attack:PseudoPrivateDataGuided",
            summary="PPDG-MI: runs a base attack, tunes its generator on the best of what it found, runs it again",
            paper="Peng et al., NeurIPS 2024",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="experimental",
        )
    ]
