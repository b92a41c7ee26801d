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
            name="diff-mi",
            target="mi_attack_diff_mi.attack:DiffMi",
            summary="Diff-MI: pixels searched under a conditional diffusion model that was fine-tuned on the target",
            paper="Li et al., arXiv:2407.11424",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="verified",
        )
    ]
