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
            name="transcripts",
            target="mi_evaluator_transcripts.evaluator:TranscriptEvaluator",
            summary="Secrets of training clips that were recovered, and their exposure, over their repetitions",
            modality="audio",
            goals=("corpus",),
            needs=("private", "truth"),
            default=True,
        )
    ]
