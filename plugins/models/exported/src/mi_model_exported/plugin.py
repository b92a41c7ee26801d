"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import SourceSpec

LOADING = "mi_model_exported.loading"


@hookimpl
def mi_sources() -> Iterable[SourceSpec]:
    """Describe the schemes."""
    return [
        SourceSpec(
            name="torchscript", target=f"{LOADING}:load_script", scheme="torchscript",
            summary="A file of torch.jit.save: --model torchscript:classifier.pt --data ...",
        ),
        SourceSpec(
            name="export", target=f"{LOADING}:load_program", scheme="export",
            summary="A file of torch.export.save: --model export:classifier.pt2 --data ...",
        ),
        SourceSpec(
            name="py", target=f"{LOADING}:load_python", scheme="py",
            summary="A Python function that answers, or a network: --model py:my_module:predict --data ...",
        ),
    ]  # fmt: skip
