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
            name="gsef",
            target="mi_attack_gsef.attack:ExplanationAttack",
            summary="Edges from explanations: nodes whose answers rest on the same features are neighbours",
            paper="Olatunji et al., PETS 2023 (arXiv:2206.14724)",
            modality="graph",
            goal="structure",
            access=Access.SCORES,
            roles=("gnn",),
        )
    ]
