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
            name="alignmi",
            target="mi_attack_alignmi.attack:Aligned",
            summary="AlignMI: a white-box attack whose gradients are averaged over changed copies of each candidate",
            paper="Peng et al., NeurIPS 2025",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
        )
    ]
