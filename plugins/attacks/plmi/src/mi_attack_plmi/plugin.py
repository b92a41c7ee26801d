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
            name="plmi",
            target="mi_attack_plmi.attack:PseudoLabelGuided",
            summary="PLG-MI: a conditional GAN trained under the target's guidance, then a search for max margin",
            paper="Yuan et al., AAAI 2023 (arXiv:2302.09814)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
