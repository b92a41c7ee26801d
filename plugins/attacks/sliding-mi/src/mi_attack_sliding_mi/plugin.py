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
            name="sliding-mi",
            target="mi_attack_sliding_mi.attack:SlidingInversion",
            summary="Sliding model inversion: overlapping windows of a waveform, one after the other; no prior",
            paper="Pizzi, Boenisch, Sahin, Böttinger, 2023 (arXiv:2301.03206)",
            modality="audio",
            goal="class",
            access=Access.WHITE_BOX,
            needs=(),
            status="experimental",
        )
    ]
