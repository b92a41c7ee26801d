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
            name="lokt",
            target="mi_attack_lokt.attack:KnowledgeTransfer",
            summary="LOKT: a GAN taught by labels, surrogates of the target, then a search of their margin",
            paper="Nguyen et al., NeurIPS 2023",
            modality="image",
            goal="class",
            access=Access.LABEL,
            needs=("public",),
            status="experimental",
        )
    ]
