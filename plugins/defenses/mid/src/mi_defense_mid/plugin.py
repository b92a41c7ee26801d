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
            name="mid",
            target="mi_defense_mid.defense:MutualInformationRegularisation",
            summary="Squeeze the features through a noisy bottleneck that limits what outputs tell of the input",
            paper="Wang et al., AAAI 2021 (arXiv:2009.05241)",
            modality=ANY,
            stages=("training",),
            claims=("head",),
        )
    ]
