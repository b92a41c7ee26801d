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
            name="distill",
            target="mi_defense_distill.defense:Distillation",
            summary="Release a student that learns from a teacher's soft answers, of private or of public samples",
            paper="Papernot et al., S&P 2016 (arXiv:1511.04508)",
            modality=ANY,
            stages=("training",),
            claims=("task-loss",),
        )
    ]
