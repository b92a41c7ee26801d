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
            name="link-similarity",
            target="mi_attack_link_similarity.attack:LinkSimilarity",
            summary="Link stealing: nodes that a graph network answers alike are taken for neighbours",
            paper="He et al., USENIX Security 2021 (arXiv:2005.02131)",
            modality="graph",
            goal="structure",
            access=Access.SCORES,
            roles=("gnn",),
        )
    ]
