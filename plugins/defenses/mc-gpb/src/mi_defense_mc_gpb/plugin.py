"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defense."""
    return [
        DefenseSpec(
            name="mc-gpb",
            target="mi_defense_mc_gpb.defense:MarkovChainPrivacyBottleneck",
            summary="Leave edges out, and make hidden features of neighbours and of layers depend less on each other",
            paper="Zhou et al., ICML 2023 (arXiv:2306.09104)",
            modality="graph",
            stages=("training",),
            roles=("gnn",),
            claims=("edges",),
        )
    ]
