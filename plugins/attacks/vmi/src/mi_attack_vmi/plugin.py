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
            name="vmi",
            target="mi_attack_vmi.attack:Variational",
            summary="VMI: a distribution over a GAN's latents for each class, near its prior and like the class",
            paper="Wang et al., NeurIPS 2021 (arXiv:2201.10787)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
