"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="averaging",
            target="mi_attack_averaging.attack:Averaging",
            summary="Adaptive: a black-box attack that sees the mean of several answers to each query",
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        ),
        AttackSpec(
            name="averaging-label",
            target="mi_attack_averaging.attack:LabelAveraging",
            summary="Adaptive: a label-only attack that sees the majority of several answers to each query",
            modality="image",
            goal="class",
            access=Access.LABEL,
            needs=("public",),
        ),
    ]
