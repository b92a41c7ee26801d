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
            name="mc-gra",
            target="mi_attack_mc_gra.attack:MarkovChainReconstruction",
            summary="MC-GRA: relaxed edges along which a graph network is, layer by layer, what is known of it",
            paper="Zhou et al., ICML 2023 (arXiv:2306.09104)",
            modality="graph",
            goal="structure",
            access=Access.WHITE_BOX,
            roles=("gnn",),
        )
    ]
