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
            name="dp-sgd",
            target="mi_defense_dp_sgd.defense:DifferentiallyPrivate",
            summary="Clip each sample's gradient and add noise, so that one record's influence is bounded",
            paper="Abadi et al., CCS 2016 (arXiv:1607.00133)",
            modality=ANY,
            stages=("training",),
            roles=("classifier", "language-model", "masked-language-model", "recogniser"),
            claims=("batches", "optimizer"),
        )
    ]
