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
            name="gap",
            target="mi_defense_gap.defense:AggregationPerturbation",
            summary="Classify nodes by noisy sums over neighbours, drawn once: edge differential privacy",
            paper="Sajadmanesh et al., USENIX Security 2023 (arXiv:2203.00949)",
            modality="graph",
            stages=("training",),
            roles=("gnn",),
            claims=("edges",),
        )
    ]
