"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import SourceSpec

LOAD = "mi_model_endpoint.loading:load"


@hookimpl
def mi_sources() -> Iterable[SourceSpec]:
    """Describe the schemes."""
    summary = "A model behind an address: KServe v2, TorchServe, Hugging Face, plain JSON, or OpenAI's"
    return [
        SourceSpec(name="http", target=LOAD, summary=summary + " (not encrypted)", scheme="http"),
        SourceSpec(name="https", target=LOAD, summary=summary, scheme="https"),
    ]
