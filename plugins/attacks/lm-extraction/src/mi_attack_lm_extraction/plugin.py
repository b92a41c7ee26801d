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
            name="lm-extraction",
            target="mi_attack_lm_extraction.attack:TrainingTextExtraction",
            summary="Texts are drawn from a language model and ranked by what a training text would look like",
            paper="Carlini et al., USENIX Security 2021 (arXiv:2012.07805)",
            modality="text",
            goal="corpus",
            access=Access.SCORES,
            needs=("public",),
            roles=("language-model",),
            status="experimental",
        )
    ]
