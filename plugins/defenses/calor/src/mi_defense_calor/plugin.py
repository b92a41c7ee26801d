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
            name="calor",
            target="mi_defense_calor.defense:LowRankConfidence",
            summary="Low-rank tanh head, and confidences that are best below 1",
            paper="Yu et al., 2024 (arXiv:2410.05814)",
            modality=ANY,
            stages=("training",),
            claims=("head", "task-loss"),
        )
    ]
