"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attack."""
    return [
        AttackSpec(
            name="pii-extraction",
            target="mi_attack_pii_extraction.attack:PersonalDataExtraction",
            summary="Names, numbers and addresses are drawn from a language model, or chosen for a hole in a text",
            paper="Lukas et al., IEEE S&P 2023 (arXiv:2302.00539)",
            modality="text",
            goal="corpus",
            access=Access.SCORES,
            needs=("public",),
            roles=("language-model",),
            status="experimental",
        )
    ]
