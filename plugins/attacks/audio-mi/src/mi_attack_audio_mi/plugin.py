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
            name="audio-mi",
            target="mi_attack_audio_mi.attack:AudioInversion",
            summary="Gradients on a waveform, a mel spectrogram or an equaliser of public speech, with regularisers",
            paper="after Fredrikson, Jha, Ristenpart, CCS 2015 (doi:10.1145/2810103.2813677)",
            modality="audio",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
            status="experimental",
        )
    ]
