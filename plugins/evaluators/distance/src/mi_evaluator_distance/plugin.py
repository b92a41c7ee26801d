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
            name="distance",
            target="mi_evaluator_distance.evaluator:DistanceEvaluator",
            summary="Distance to the nearest private sample of the class, or to the very one, beside public samples",
            modality=ANY,
            goals=("class", "instance"),
            needs=("evaluator-model", "private", "label"),
            default=True,
            status="verified",
        )
    ]
