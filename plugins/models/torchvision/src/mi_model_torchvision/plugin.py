"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ModelSpec


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    """Describe the family."""
    return [
        ModelSpec(
            name="torchvision",
            target="mi_model_torchvision.builder:build",
            summary="Any torchvision classifier: --model torchvision:name=resnet50",
            modality="image",
            roles=("classifier",),
        )
    ]
