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
            name="hete-gmi",
            target="mi_attack_hete_gmi.attack:HeteGMI",
            summary="HomoGMI, HeteGMI: relaxed edges that join nodes which are, and whose neighbours are, alike",
            paper="Liu et al., SecureComm 2023 (arXiv:2310.09800)",
            modality="graph",
            goal="structure",
            access=Access.WHITE_BOX,
            roles=("gnn",),
            below_floors=True,
        )
    ]
