"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ANY, EvaluatorSpec


@hookimpl
def mi_evaluators() -> Iterable[EvaluatorSpec]:
    """Describe the evaluator."""
    return [
        EvaluatorSpec(
            name="knowledge",
            target="mi_evaluator_knowledge.evaluator:KnowledgeEvaluator",
            summary="Accuracy on real data of a student that learned from the reconstructions alone",
            paper="Struppek et al., ICML 2022 (the authors' code)",
            modality=ANY,
            goals=("class",),
            needs=("evaluator-model", "private", "label"),
            default=False,
            status="experimental",
        )
    ]
