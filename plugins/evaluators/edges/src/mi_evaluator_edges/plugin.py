"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import EvaluatorSpec


@hookimpl
def mi_evaluators() -> Iterable[EvaluatorSpec]:
    """Describe the evaluator."""
    return [
        EvaluatorSpec(
            name="edges",
            target="mi_evaluator_edges.evaluator:EdgesEvaluator",
            summary="Edges that came back (AUC), or whole graphs (kernel, histograms), and the gain over no target",
            modality="graph",
            goals=("structure",),
            needs=("truth",),
            default=True,
        )
    ]
