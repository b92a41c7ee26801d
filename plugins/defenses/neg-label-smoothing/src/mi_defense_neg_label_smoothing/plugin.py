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
            name="neg-label-smoothing",
            target="mi_defense_neg_label_smoothing.defense:NegativeLabelSmoothing",
            summary="Train with a negative smoothing factor, so that confidence stops guiding an inversion",
            paper="Struppek et al., ICLR 2024 (arXiv:2310.06549)",
            modality=ANY,
            stages=("training",),
            claims=("task-loss",),
        )
    ]
