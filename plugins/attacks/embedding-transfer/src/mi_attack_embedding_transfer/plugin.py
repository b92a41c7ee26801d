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
            name="embedding-transfer",
            target="mi_attack_embedding_transfer.attack:EmbeddingTransfer",
            summary="Few pairs align embeddings with an own decoder; or a language model proposes, cosines choose",
            paper="Chen et al., ACL 2025 (ALGEN); Zhang et al., 2025 (arXiv:2504.00147)",
            modality="text",
            goal="instance",
            roles=("encoder",),
            access=Access.SCORES,
            needs=("public",),
        )
    ]
