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
            name="voice",
            target="mi_evaluator_voice.evaluator:VoiceEvaluator",
            summary="Whose voice is it? Own against other speakers, rank and equal error rate by a speaker encoder",
            paper="Wan et al., ICASSP 2018 (arXiv:1710.10467)",
            modality="audio",
            goals=("class", "instance"),
            needs=("evaluator-model", "private", "label"),
            default=True,
        )
    ]
