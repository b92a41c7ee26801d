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
            name="re-embedding",
            target="mi_evaluator_re_embedding.evaluator:ReembeddingEvaluator",
            summary="Cosine with the very text that a case is about, by rare words or an encoder that was not attacked",
            modality="text",
            goals=("instance", "prompt", "corpus"),
            needs=("truth",),
            default=True,
            status="verified",
        )
    ]
