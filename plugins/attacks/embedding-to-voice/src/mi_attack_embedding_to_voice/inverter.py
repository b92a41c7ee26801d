"""The inverter: a generator of log-mel spectrograms, given a voiceprint and latents for all that it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mi_attack_embedding_to_voice.public_voices import PublicVoices, cosines
from mi_audio.mel_vae import Cycle, MelVae, VaeSettings, VaeTraining
from mi_audio.rendering import Renderer, Scale
from micore.kit.generator_training import copied, train_generator
from micore.runtime import Runtime

__all__ = ["Inverter", "learned"]

BATCH = 256


class Inverter:
    """A trained inverter: latents (B, z) and standardised voiceprints (B, d) to spectrograms and waveforms."""

    def __init__(self, vae: MelVae, scale: Scale, renderer: Renderer) -> None:
        self._generator, self._scale, self._renderer = vae.generator, scale, renderer

    @property
    def latent_dim(self) -> int:
        """The length of the latents."""
        return self._generator.latent_dim

    def spectrograms(self, latents: Tensor, conditions: Tensor) -> Tensor:
        """Return log-mel spectrograms (B, mels, frames)."""
        return self._scale.unscaled(self._generator(latents, conditions))

    def rendered(self, latents: Tensor, conditions: Tensor) -> Tensor:
        """Return waveforms (B, length)."""
        return self._renderer.rendered(self.spectrograms(latents, conditions))

    @classmethod
    def restored(cls, state: Mapping[str, Any], renderer: Renderer, runtime: Runtime) -> Inverter:
        """Build what `learned` gave: on the device, in eval mode, without gradients."""
        vae = _network(state["arguments"], runtime)
        vae.load_state_dict(state["weights"])
        runtime.maybe_compile(vae.eval().requires_grad_(False))
        return cls(vae, Scale.restored(state["scale"], runtime), renderer)


def learned(
    voices: PublicVoices,
    settings: VaeSettings,
    renderer: Renderer,
    runtime: Runtime,
    encoder: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Train an inverter on public clips and their voiceprints; plain data for `Inverter.restored`.

    encoder: the target itself, waveforms to voiceprints, where the cycle of what is drawn through it counts, too.
    """
    rows = torch.arange(len(voices.clips))
    spectrograms = torch.cat(
        [renderer.analysed(voices.waveforms(part).to(runtime.device)) for part in rows.split(BATCH)]
    )
    scale = Scale.of(spectrograms)
    mels, frames = renderer.shape
    arguments = {"mels": mels, "frames": frames, "width": settings.width, "latent_dim": settings.latent_dim,
                 "condition_dim": voices.prints.shape[1]}  # fmt: skip
    vae = _network(arguments, runtime)
    cycle = None if encoder is None else _cycle(encoder, voices, scale, renderer)
    training = VaeTraining(
        vae, scale.scaled(spectrograms), voices.standardised(voices.prints), runtime.rng("inverter", "training"),
        settings, cycle=cycle, autocast=runtime.autocast,
    )  # fmt: skip
    train_generator(training, settings.iterations, runtime, "training the inverter", runtime.checkpoints.load())
    return {"weights": copied(vae.state_dict()), "arguments": arguments, "scale": scale.state()}


def _cycle(encoder: Callable[[Tensor], Tensor], voices: PublicVoices, scale: Scale, renderer: Renderer) -> Cycle:
    """Return 1 - cosine of what the encoder says of spectrograms, and the voiceprints that they were drawn for."""

    def cycle(spectrograms: Tensor, conditions: Tensor) -> Tensor:
        heard = encoder(renderer.searched(scale.unscaled(spectrograms)))
        return 1 - cosines(heard, voices.unstandardised(conditions))

    return cycle


def _network(arguments: Mapping[str, Any], runtime: Runtime) -> MelVae:
    with runtime.seeded("inverter", "parameters"):
        return runtime.place(MelVae(**{name: int(value) for name, value in arguments.items()}))
