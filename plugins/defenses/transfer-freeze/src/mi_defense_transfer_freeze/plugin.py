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
            name="transfer-freeze",
            target="mi_defense_transfer_freeze.defense:TransferFreeze",
            summary="Pre-train on public data and freeze the first layers, so that only the last see private data",
            paper="Ho et al., CVPR 2024 (arXiv:2405.05588)",
            modality=ANY,
            stages=("training",),
            claims=("initialisation",),
        )
    ]
