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
            name="mi-face",
            target="mi_attack_mi_face.attack:MiFace",
            summary="MI-Face: gradient descent on pixels from a neutral image, denoised and sharpened; no prior",
            paper="Fredrikson, Jha, Ristenpart, CCS 2015 (doi:10.1145/2810103.2813677)",
            modality="image",
            goal="class",
            access=Access.WHITE_BOX,
            needs=(),
            status="verified",
        )
    ]
