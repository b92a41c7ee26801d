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
            name="attribute",
            target="mi_evaluator_attribute.evaluator:AttributeEvaluator",
            summary="Sensitive values that came back, the gain over imputation, and private against held-out rows",
            modality="tabular",
            goals=("attribute",),
            needs=("truth",),
            default=True,
        )
    ]
