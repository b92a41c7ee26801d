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
            name="kedmi",
            target="mi_attack_kedmi.attack:KnowledgeEnriched",
            summary="KED-MI: a GAN whose critic learns from the target, then a Gaussian of latents for each class",
            paper="Chen et al., ICCV 2021 (arXiv:2010.04092)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
