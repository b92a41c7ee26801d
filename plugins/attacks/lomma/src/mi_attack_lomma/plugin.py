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
            name="lomma",
            target="mi_attack_lomma.attack:LogitModelAugmented",
            summary="LOMMA: GMI or KED-MI with raw logits, a feature prior and distilled students of the target",
            paper="Nguyen et al., CVPR 2023 (arXiv:2304.01669)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
