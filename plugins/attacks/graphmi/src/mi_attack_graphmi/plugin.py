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
            name="graphmi",
            target="mi_attack_graphmi.attack:GraphMI",
            summary="GraphMI: relaxed edges with which a graph network gives the known classes",
            paper="Zhang et al., IJCAI 2021 (arXiv:2106.02820)",
            modality="graph",
            goal="structure",
            access=Access.WHITE_BOX,
            roles=("gnn",),
            below_floors=True,
        ),
        _black_box("graphmi-bb", "BlackBoxGraphMI", "scores", Access.SCORES),
        _black_box("graphmi-label", "LabelGraphMI", "classes alone", Access.LABEL),
    ]


def _black_box(name: str, cls: str, answers: str, access: Access) -> AttackSpec:
    return AttackSpec(
        name=name,
        target=f"mi_attack_graphmi.blackbox:{cls}",
        summary=f"GraphMI from {answers}: edges found by estimated gradients, or by reinforcement learning",
        paper="Zhang et al., TKDE 2022 (arXiv:2209.07807)",
        modality="graph",
        goal="structure",
        access=access,
        roles=("gnn",),
        below_floors=True,
    )
