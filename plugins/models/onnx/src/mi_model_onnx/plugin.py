"""Entry point of the package; imports neither torch nor onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import SourceSpec


@hookimpl
def mi_sources() -> Iterable[SourceSpec]:
    """Describe the scheme."""
    return [
        SourceSpec(
            name="onnx", target="mi_model_onnx.loading:load", scheme="onnx",
            summary="An ONNX file through ONNX Runtime: --model onnx:classifier.onnx --data ...",
        )
    ]  # fmt: skip
