"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

PAPER = "Amid et al., Interspeech 2022 (arXiv:2204.08345)"


@hookimpl
def mi_attacks() -> Iterable[AttackSpec]:
    """Describe the attacks."""
    return [
        AttackSpec(
            name="asr-extraction",
            target="mi_attack_asr_extraction.attack:MaskedRanking",
            summary="A hidden word of a training clip is drowned in noise, and all candidates ranked by likelihood",
            paper=PAPER,
            modality="audio",
            goal="corpus",
            access=Access.SCORES,
            roles=("recogniser",),
        ),
        AttackSpec(
            name="asr-extraction-label",
            target="mi_attack_asr_extraction.attack:NoiseMasking",
            summary="A hidden word of a training clip is drowned in noise, and transcripts are counted over draws",
            paper=PAPER,
            modality="audio",
            goal="corpus",
            access=Access.LABEL,
            roles=("recogniser",),
        ),
    ]
