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
            name="rlb-mi",
            target="mi_attack_rlb_mi.attack:ReinforcedInversion",
            summary="RLB-MI: an agent per class learns, from the target's scores, which latents of a GAN look like it",
            paper="Han et al., CVPR 2023 (arXiv:2304.04625)",
            modality="image",
            goal="class",
            access=Access.SCORES,
            needs=("public",),
        )
    ]
