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
            name="vec2text",
            target="mi_attack_vec2text.attack:Vec2Text",
            summary="Vec2Text: guesses the text behind an embedding, embeds the guess, corrects it, round after round",
            paper="Morris et al., EMNLP 2023 (arXiv:2310.06816)",
            modality="text",
            goal="instance",
            access=Access.SCORES,
            needs=("public",),
            roles=("encoder",),
        )
    ]
