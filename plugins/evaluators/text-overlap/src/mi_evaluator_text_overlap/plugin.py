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
            name="text-overlap",
            target="mi_evaluator_text_overlap.evaluator:TextOverlapEvaluator",
            summary="Exact match, word overlap, BLEU and ROUGE-L against the very text that a case is about",
            modality="text",
            goals=("instance", "prompt", "corpus"),
            needs=("truth",),
            default=True,
            status="verified",
        )
    ]
