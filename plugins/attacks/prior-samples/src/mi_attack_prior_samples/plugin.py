"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the control."""
    return [
        AttackSpec(
            name="prior-samples",
            target="mi_attack_prior_samples.attack:PriorSamples",
            summary="Negative control: samples of a GAN trained on public data; the target is never asked",
            modality="image",
            goal="class",
            access=Access.LABEL,
            needs=("public",),
            control=True,
            status="verified",
        )
    ]
