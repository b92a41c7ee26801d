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
            name="paired",
            target="mi_evaluator_paired.evaluator:PairedEvaluator",
            summary="PSNR, SSIM and, with weights of yours, LPIPS against the very image, and over its hidden part",
            modality="image",
            goals=("instance",),
            needs=("truth",),
            default=True,
            status="verified",
        )
    ]
