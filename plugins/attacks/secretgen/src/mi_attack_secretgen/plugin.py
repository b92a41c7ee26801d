"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

PAPER = "Yuan et al., ECCV 2022 (arXiv:2207.12263)"


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="secretgen",
            target="mi_attack_secretgen.attack:SecretGen",
            summary="SecretGen: completions of a hidden image vote for its class, then the best is refined for it",
            paper=PAPER,
            modality="image",
            goal="instance",
            access=Access.WHITE_BOX,
            needs=("public", "evidence"),
            status="verified",
        ),
        AttackSpec(
            name="secretgen-bb",
            target="mi_attack_secretgen.attack:SecretGenBlackBox",
            summary="SecretGen from scores alone: the target votes on completions, critics refine the best",
            paper=PAPER,
            modality="image",
            goal="instance",
            access=Access.SCORES,
            needs=("public", "evidence"),
            status="verified",
        ),
    ]
