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
            name="face-descriptor",
            target="mi_evaluator_face_descriptor.evaluator:FaceDescriptorEvaluator",
            summary="Whose face is it? Rank, distance and verification by dlib's 128-d face descriptor",
            paper="King, dlib-models: face_recognition_resnet_model_v1 (2017)",
            modality="image",
            goals=("class",),
            needs=("private", "weights"),
        )
    ]
