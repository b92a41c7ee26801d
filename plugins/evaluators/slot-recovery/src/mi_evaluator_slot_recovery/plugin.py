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
            name="slot-recovery",
            target="mi_evaluator_slot_recovery.evaluator:SlotRecoveryEvaluator",
            summary="Share of the names, numbers and addresses of the private texts that stand in what was recovered",
            modality="text",
            goals=("instance", "prompt", "corpus"),
            needs=("private",),
            default=True,
            status="verified",
        )
    ]
