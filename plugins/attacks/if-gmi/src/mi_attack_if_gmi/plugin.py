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
            name="if-gmi",
            target="mi_attack_if_gmi.attack:IntermediateFeatures",
            summary="IF-GMI: a StyleGAN's code, then its intermediate features, each near where it began",
            paper="Qiu et al., ECCV 2024 (arXiv:2407.13863)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
        )
    ]
