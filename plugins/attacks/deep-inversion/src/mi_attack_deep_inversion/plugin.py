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
            name="deep-inversion",
            target="mi_attack_deep_inversion.attack:DeepInversion",
            summary="DeepInversion: pixels that have the statistics which batch normalisation remembers; data-free",
            paper="Yin et al., CVPR 2020 (arXiv:1912.08795)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=(),
            status="verified",
        )
    ]
