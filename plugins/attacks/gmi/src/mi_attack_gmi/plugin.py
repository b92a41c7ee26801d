"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

PAPER = "Zhang et al., CVPR 2020 (arXiv:1911.07135)"


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="gmi",
            target="mi_attack_gmi.attack:GenerativeInversion",
            summary="GMI: a GAN of public images, then latents that look real to its critic and like the class",
            paper=PAPER,
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        ),
        AttackSpec(
            name="gmi-masked",
            target="mi_attack_gmi.masked:MaskedInversion",
            summary="GMI with a partly hidden image at hand: completions that look real and like its guessed class",
            paper=PAPER,
            modality="image",
            goal="instance",
            access=Access.WHITE_BOX,
            needs=("public", "evidence"),
            status="verified",
        ),
    ]
