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
            summary="A decoder that was learned on a public graph reads edges from node embeddings",
            paper="Duddu et al., MobiQuitous 2020 (arXiv:2010.00906)",
            modality="graph",
            goal="structure",
            access=Access.SCORES,
            needs=("public",),
            roles=("gnn",),
        )
    ]
