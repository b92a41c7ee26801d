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
            name="p2i-mi",
            target="mi_attack_p2i_mi.attack:PredictionToImage",
            summary="In the manner of P2I-MI: an encoder from predictions to a StyleGAN's codes, and no search at all",
            paper="P2I-MI, ECCV 2024",
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        )
    ]
