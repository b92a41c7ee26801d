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
            name="brep-mi",
            target="mi_attack_brep_mi.attack:BoundaryRepulsion",
            summary="BREP-MI: labels of points on growing spheres in a GAN's latent space, away from other classes",
            paper="Kahla et al., CVPR 2022 (arXiv:2203.01925)",
            modality="image",
            goal="class",
            access=Access.LABEL,
            needs=("public",),
            status="experimental",
        )
    ]
