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
            name="ssd",
            target="mi_defense_ssd.defense:StealthyShield",
            summary="Move each answer towards the mean answer of a class, within a budget that grows with doubt",
            paper="Stealthy Shield Defense, ICLR 2025",
            modality=ANY,
            stages=("inference",),
        )
    ]
