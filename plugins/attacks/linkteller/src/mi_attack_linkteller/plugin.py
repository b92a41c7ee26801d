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
            name="linkteller",
            target="mi_attack_linkteller.attack:LinkTeller",
            summary="LinkTeller: whose answer moves when the features of a node are changed?",
            paper="Wu et al., S&P 2022 (arXiv:2108.06504)",
            modality="graph",
            goal="structure",
            access=Access.SCORES,
            roles=("gnn",),
        )
    ]
