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
            name="extraction",
            target="mi_evaluator_extraction.evaluator:ExtractionEvaluator",
            summary="Which ranked candidates hold a training text, linked data of one person, or a planted secret",
            modality="text",
            goals=("corpus",),
            needs=("private",),
            default=True,
            status="verified",
        )
    ]
