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
            name="adversarial-training",
            target="mi_defense_adversarial_training.defense:AdversarialTraining",
            summary="Train on worst-case inputs (PGD); no shield against inversion, it is here to be measured",
            paper="Madry et al., ICLR 2018 (arXiv:1706.06083)",
            modality=ANY,
            stages=("data", "training"),
        )
    ]
