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
            name="text-revealer",
            target="mi_attack_text_revealer.attack:TextRevealer",
            summary="Texts of a class: a language model steered by gradients, or tokens exchanged by gradients",
            paper="Zhang, Hidano, Koushanfar, 2022 (arXiv:2209.10505)",
            modality="text",
            goal="class",
            roles=("classifier",),
            access=Access.WHITE_BOX,
            needs=("public",),
        )
    ]
