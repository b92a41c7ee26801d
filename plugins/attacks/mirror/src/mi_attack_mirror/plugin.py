"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

PAPER = "An et al., NDSS 2022"


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="mirror",
            target="mi_attack_mirror.attack:Mirror",
            summary="MIRROR, white-box: a StyleGAN's codes by cross-entropy, kept in a box of P space",
            paper=PAPER,
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        ),
        AttackSpec(
            name="mirror-bb",
            target="mi_attack_mirror.black_box:MirrorBlackBox",
            summary="MIRROR, black-box: a StyleGAN's codes by a genetic search in P space, from scores alone",
            paper=PAPER,
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        ),
    ]
