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
            name="exposure",
            target="mi_evaluator_exposure.evaluator:ExposureEvaluator",
            summary="Exposure of planted secrets in bits, by rank and by a skew-normal fit, over their repetitions",
            modality="text",
            goals=("corpus",),
            needs=("private", "truth", "ranking"),
            default=True,
            status="verified",
        )
    ]
