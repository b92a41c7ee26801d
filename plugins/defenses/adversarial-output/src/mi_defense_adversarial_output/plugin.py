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
            name="adversarial-output",
            target="mi_defense_adversarial_output.defense:AdversarialOutput",
            summary="Move the scores, within a budget, to where a mimic of the adversary reconstructs worst",
            paper="Wen, Yiu, Hui: Defending Against Model Inversion Attack by Adversarial Examples, 2021",
            modality=ANY,
            stages=("inference",),
        )
    ]
