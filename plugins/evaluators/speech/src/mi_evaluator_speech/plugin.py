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
            name="speech",
            target="mi_evaluator_speech.evaluator:SpeechEvaluator",
            summary="Sound without a classifier: distances to private and public speech, voiced and moving parts",
            modality="audio",
            goals=("class", "instance"),
            needs=("private", "label"),
            default=True,
        )
    ]
