"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec

EDGES = "edges"
"""The part of a target that these defenses replace."""


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defenses."""
    return [
        _defense("edge-rand", "EdgeRand", "Randomised response for each pair: edge differential privacy",
                 "Wu et al., S&P 2022 (arXiv:2108.06504)"),
        _defense("lap-graph", "LapGraph", "The likeliest edges under Laplace noise: edge differential privacy",
                 "Wu et al., S&P 2022 (arXiv:2108.06504)"),
        _defense("degree-preserving", "DegreePreserving", "Edges change partners; nodes keep their number of them"),
    ]  # fmt: skip


def _defense(name: str, cls: str, summary: str, paper: str | None = None) -> DefenseSpec:
    return DefenseSpec(
        name=name, target=f"mi_defense_edge_perturbation.defense:{cls}", summary=summary, paper=paper, modality="graph",
        stages=("training",), roles=("gnn",), claims=(EDGES,),
    )  # fmt: skip
