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
            name="consensus",
            target="mi_evaluator_consensus.evaluator:ConsensusEvaluator",
            summary="What at least three independent classifiers agree on, also after noise and blur",
            modality=ANY,
            goals=("class", "instance"),
            needs=("evaluator-models", "label"),
            default=False,
            status="experimental",
        )
    ]
