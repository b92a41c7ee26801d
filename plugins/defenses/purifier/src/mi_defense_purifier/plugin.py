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
            name="purifier",
            target="mi_defense_purifier.defense:Purifier",
            summary="Pass the scores through a narrow autoencoder, so that answers of one class look alike",
            paper="Yang et al., 2020 (arXiv:2005.03915)",
            modality=ANY,
            stages=("inference",),
        )
    ]
