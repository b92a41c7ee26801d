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
            name="canary-exposure",
            target="mi_attack_canary_exposure.attack:CanaryExposure",
            summary="A planted secret is ranked by likelihood among others of its format, or searched for",
            paper="Carlini et al., USENIX Security 2019 (arXiv:1802.08232)",
            modality="text",
            goal="corpus",
            access=Access.SCORES,
            needs=("public",),
            roles=("language-model",),
            status="experimental",
        )
    ]
