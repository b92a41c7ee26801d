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
            name="nopeek",
            target="mi_defense_nopeek.defense:DistanceCorrelationPenalty",
            summary="Lower the distance correlation between the input and what a hidden layer passes on",
            paper="Vepakomma et al., ICDM Workshops 2020 (arXiv:2008.09161)",
            modality=ANY,
            stages=("training",),
        )
    ]
