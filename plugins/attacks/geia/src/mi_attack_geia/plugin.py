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
            name="geia",
            target="mi_attack_geia.attack:GenerativeEmbeddingInversion",
            summary="GEIA: a decoder writes the text behind an embedding; the best of several by embedding them again",
            paper="Li, Xu, Song, Findings of ACL 2023 (arXiv:2305.03010)",
            modality="text",
            goal="instance",
            access=Access.SCORES,
            needs=("public",),
            roles=("encoder",),
        )
    ]
