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
            name="vlm-judge",
            target="mi_evaluator_vlm_judge.evaluator:VisionLanguageJudge",
            summary="Does a vision-language model, asked at an address, see the same person or object?",
            modality="image",
            goals=("class",),
            needs=("private", "label", "endpoint"),
            default=False,
            status="experimental",
        )
    ]
