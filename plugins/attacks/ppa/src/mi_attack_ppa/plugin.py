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
            name="ppa",
            target="mi_attack_ppa.attack:PlugAndPlay",
            summary="PPA: a StyleGAN's codes under random crops and a Poincare loss, the most robust are kept",
            paper="Struppek et al., ICML 2022 (arXiv:2201.12179)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
