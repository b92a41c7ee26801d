"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    return [
        AttackSpec(
            name="embedding-to-graph",
            target="mi_attack_embedding_to_graph.attack:EmbeddingToGraph",
            summary="A decoder learned on public graphs reads edges from node embeddings, or whole graphs from theirs",
            paper="Duddu et al., MobiQuitous 2020 (arXiv:2010.00906); Zhang et al., USENIX Security 2022",
            modality="graph",
            goal="structure",
            access=Access.SCORES,
            needs=("public",),
            roles=("gnn",),
        )
    ]
