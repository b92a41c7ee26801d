"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ANY, DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defense."""
    return [
        DefenseSpec(
            name="midre",
            target="mi_defense_midre.defense:RandomErasing",
            summary="Erase a random square of each training sample, so that the model never sees one whole",
            paper="Tran et al., TMLR 2025 (arXiv:2409.01062)",
            modality=ANY,
            stages=("data",),
        )
    ]
