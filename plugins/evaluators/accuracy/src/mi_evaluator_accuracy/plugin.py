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
            name="accuracy",
            target="mi_evaluator_accuracy.evaluator:AccuracyEvaluator",
            summary="Top-1 and top-5 accuracy of the reconstructions by an independent classifier",
            modality=ANY,
            goals=("class", "instance"),
            needs=("evaluator-model", "label"),
            default=True,
            status="verified",
        )
    ]
