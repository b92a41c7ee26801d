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
            name="mirror",
            target="mi_attack_mirror.attack:Mirror",
            summary="MIRROR, white-box: a StyleGAN's codes by cross-entropy, kept in a box of P space",
            paper="An et al., NDSS 2022",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
