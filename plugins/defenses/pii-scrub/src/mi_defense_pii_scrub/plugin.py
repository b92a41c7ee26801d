"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defense."""
    return [
        DefenseSpec(
            name="pii-scrub",
            target="mi_defense_pii_scrub.defense:Scrubbing",
            summary="Train on texts whose names, addresses and numbers are tags or pseudonyms",
            paper="Lukas et al., S&P 2023 (arXiv:2302.00539)",
            modality="text",
            stages=("data",),
            roles=("classifier", "language-model", "masked-language-model"),
        )
    ]
