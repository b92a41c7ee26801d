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
            name="rolss",
            target="mi_defense_rolss.defense:ShortcutRemoval",
            summary="Remove or weaken the skip connections of the last stage",
            paper="Koh et al., ECCV 2024 (arXiv:2409.01696)",
            modality=ANY,
            stages=("training",),
            claims=("shortcuts",),
        )
    ]
