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
            name="distribution",
            target="mi_evaluator_distribution.evaluator:DistributionEvaluator",
            summary="FID, KID, precision, recall, coverage and diversity in features of an independent network",
            modality=ANY,
            goals=("class",),
            needs=("evaluator-model", "private", "label"),
            default=False,
            status="experimental",
        )
    ]
