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
            name="word-set",
            target="mi_attack_word_set.attack:WordSet",
            summary="The words behind an embedding, without their order: a classifier of words or a set decoder",
            paper="Song and Raghunathan, CCS 2020 (arXiv:2004.00053)",
            modality="text",
            goal="instance",
            roles=("encoder",),
            access=Access.SCORES,
            needs=("public",),
        )
    ]
