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
            name="timm",
            target="mi_model_timm.builder:build",
            summary="Any timm classifier: --model timm:name=vit_tiny_patch16_224",
            modality="image",
            roles=("classifier",),
        )
    ]
