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
            name="bido",
            target="mi_defense_bido.defense:BilateralDependencyOptimisation",
            summary="Make hidden layers depend less on the input and more on the label (HSIC or COCO)",
            paper="Peng et al., KDD 2022 (arXiv:2206.05483)",
            modality=ANY,
            stages=("training",),
            claims=("batches",),
        )
    ]
