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
            name="trap-mid",
            target="mi_defense_trap_mid.defense:TrapMid",
            summary="Plant a faint secret trigger per class: an inversion finds triggers, and queries with them show",
            paper="Liu and Chen, NeurIPS 2024",
            modality=ANY,
            stages=("training", "monitoring"),
        )
    ]
