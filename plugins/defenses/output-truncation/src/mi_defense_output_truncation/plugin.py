"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defense."""
    return [
        DefenseSpec(
            name="output-truncation",
            target="mi_defense_output_truncation.defense:OutputTruncation",
            summary="Answer with the most likely tokens only",
            paper="Morris et al., ICLR 2024 (arXiv:2311.13647)",
            modality="text",
            stages=("inference",),
            roles=("language-model", "masked-language-model"),
        )
    ]
