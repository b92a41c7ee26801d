"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ModelSpec, SourceSpec


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    """Describe the model that the package brings with it."""
    return [
        ModelSpec(
            name="minilm",
            target="mi_model_transformers.minilm:build",
            summary="all-MiniLM-L6-v2, a published sentence encoder, with its weights",
            paper="Wang et al., NeurIPS 2020; Reimers and Gurevych, EMNLP 2019",
            modality="text",
            roles=("encoder",),
        )
    ]


@hookimpl
def mi_sources() -> Iterable[SourceSpec]:
    """Describe the scheme."""
    return [
        SourceSpec(
            name="hf",
            target="mi_model_transformers.loading:load",
            summary="A transformers checkpoint on this machine: --model hf:FOLDER --data ...",
            scheme="hf",
        )
    ]
