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
            name="audio-gan-mi",
            target="mi_attack_audio_gan_mi.attack:SpeechPriorInversion",
            summary="GMI on speech: a GAN or VAE of public log-mels, a latent search through rendered waveforms",
            paper="Zhang et al., CVPR 2020 (arXiv:1911.07135), on log-mel spectrograms",
            modality="audio",
            goal="class",
            access=Access.WHITE_BOX,
            needs=("public",),
        )
    ]
