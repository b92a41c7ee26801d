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
            name="dedup",
            target="mi_defense_dedup.defense:Deduplication",
            summary="Train on one copy of each text: equal and nearly equal ones are left out",
            paper="Lee et al., ACL 2022 (arXiv:2107.06499)",
            modality="text",
            stages=("data",),
            roles=("language-model", "masked-language-model", "classifier"),
        )
    ]
