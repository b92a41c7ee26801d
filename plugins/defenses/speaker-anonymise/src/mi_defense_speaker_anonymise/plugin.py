"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defenses: of voiceprints, and of the audio that a target learns."""
    return [
        DefenseSpec(
            name="speaker-anonymise",
            target="mi_defense_speaker_anonymise.defense:SpeakerAnonymisation",
            summary="Voiceprints turned by a secret rotation, or replaced by means of a pool of other speakers'",
            paper="Tomashenko et al., Computer Speech and Language 2022 (arXiv:2109.00648)",
            modality="audio",
            stages=("inference",),
            roles=("encoder",),
        ),
        DefenseSpec(
            name="mcadams",
            target="mi_defense_speaker_anonymise.training_audio:McAdams",
            summary="Training audio whose resonances are moved by the McAdams coefficient",
            paper="Patino et al., Interspeech 2021 (arXiv:2011.01130)",
            modality="audio",
            stages=("data",),
            roles=("encoder", "classifier", "recogniser"),
        ),
    ]
