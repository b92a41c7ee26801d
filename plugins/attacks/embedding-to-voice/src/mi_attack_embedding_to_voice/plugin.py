"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="embedding-to-voice",
            target="mi_attack_embedding_to_voice.attack:VoiceprintInversion",
            summary="A learned inverter makes speech of a voiceprint; the best of several by embedding them again",
            paper="Zhang et al., J. Information Security Research 10(2), 2024 (the idea)",
            modality="audio",
            goal="instance",
            access=Access.SCORES,
            needs=("public",),
            roles=("encoder",),
        ),
        AttackSpec(
            name="embedding-to-voice-gradient",
            target="mi_attack_embedding_to_voice.gradient:VoiceprintDescent",
            summary="Down the gradient of the encoder to a spectrogram or waveform with the voiceprint",
            paper="Zhang et al., J. Information Security Research 10(2), 2024 (the idea)",
            modality="audio",
            goal="instance",
            access=Access.WHITE_BOX,
            needs=("public",),
            roles=("encoder",),
        ),
    ]
