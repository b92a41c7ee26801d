"""Generators of public log-mel spectrograms: a Wasserstein GAN and a variational auto-encoder, trained or restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mi_audio.mel_networks import MelGenerator, MelReader
from mi_audio.mel_vae import MelVae, VaeSettings, VaeTraining
from mi_audio.rendering import Renderer, Scale
from micore.kit.generator_training import GeneratorTraining, copied, train_generator
from micore.kit.latent_objective import Realism, negative_score
from micore.kit.stages import shared, tensor_digest
from micore.kit.wgan import WganSettings, WganTraining
from micore.runtime import Random, Runtime

__all__ = ["GAN", "VAE", "Critic", "SpeechPrior", "prior_state", "restore_prior"]

GAN, VAE = "gan", "vae"


class Critic(nn.Module):
    """Scores (B,) of spectrograms, each by itself."""

    def __init__(self, mels: int, frames: int, width: int) -> None:
        super().__init__()
        self.reader = MelReader(mels, frames, width, 1)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Return the scores; higher is more like public speech."""
        scores: Tensor = self.reader(spectrograms)[:, 0]
        return scores


@dataclass(frozen=True, kw_only=True)
class SpeechPrior:
    """A trained generator (`micore.contracts.Prior`).

    generator: latents to scaled spectrograms. realism: of scaled spectrograms, lower is more real; a VAE has none.
    """

    generator: MelGenerator
    realism: Realism
    scale: Scale
    renderer: Renderer

    def spectrograms(self, latents: Tensor) -> Tensor:
        """Return log-mel spectrograms (B, mels, frames)."""
        return self.scale.unscaled(self.generator(latents))

    def rendered(self, latents: Tensor) -> Tensor:
        """Return waveforms (B, length)."""
        return self.renderer.rendered(self.spectrograms(latents))

    @torch.no_grad()
    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw n waveforms (n, length)."""
        return self.rendered(rng.normal((n, self.generator.latent_dim)))


def prior_state(
    kind: str, waveforms: Tensor, settings: WganSettings | VaeSettings, mels: int, runtime: Runtime
) -> Mapping[str, Any]:
    """Train a prior of waveforms (N, length), or take it from the shelf; return plain data for `restore_prior`."""
    renderer = Renderer(waveforms.shape[1], mels, runtime)
    bands, frames = renderer.shape
    arguments = {"mels": bands, "frames": frames, "width": settings.width, "latent_dim": settings.latent_dim}

    def work(stage: Runtime) -> Mapping[str, Any]:
        spectrograms = renderer.analysed(waveforms)
        scale = Scale.of(spectrograms)
        networks = _networks(kind, arguments, stage)
        training = _training(kind, networks, scale.scaled(spectrograms), settings, stage)
        train_generator(training, settings.iterations, stage, "training the prior of speech", stage.checkpoints.load())
        weights = {name: copied(network.state_dict()) for name, network in networks.items()}
        return {"kind": kind, "weights": weights, "scale": scale.state(), "arguments": arguments,
                "length": waveforms.shape[1]}  # fmt: skip

    identity = {"kind": kind, "mels": mels, "settings": asdict(settings), "waveforms": tensor_digest(waveforms)}
    return shared(f"speech-{kind}", identity, work, runtime)


def restore_prior(
    state: Mapping[str, Any], runtime: Runtime, make: Callable[[int, int], Renderer] | None = None
) -> SpeechPrior:
    """Build a prior from `prior_state`: on the device, in eval mode, without gradients.

    make: the renderer for a length and a number of bands; None: the usual one.
    """
    arguments = {name: int(value) for name, value in state["arguments"].items()}
    networks = _networks(state["kind"], arguments, runtime)
    for name, network in networks.items():
        network.load_state_dict(state["weights"][name])
        runtime.maybe_compile(network.eval().requires_grad_(False))
    length, mels = int(state["length"]), arguments["mels"]
    renderer = Renderer(length, mels, runtime) if make is None else make(length, mels)
    if state["kind"] == GAN:
        generator, realism = networks["generator"], negative_score(networks["critic"])
    else:
        generator, realism = networks["vae"].generator, _indifferent
    return SpeechPrior(
        generator=generator, realism=realism, scale=Scale.restored(state["scale"], runtime), renderer=renderer
    )  # type: ignore[arg-type]


def _indifferent(spectrograms: Tensor) -> Tensor:
    return spectrograms.new_zeros(len(spectrograms), dtype=torch.float32)


def _networks(kind: str, arguments: Mapping[str, int], runtime: Runtime) -> dict[str, nn.Module]:
    mels, frames, width = arguments["mels"], arguments["frames"], arguments["width"]
    with runtime.seeded("speech prior", "parameters"):
        if kind == VAE:
            networks: dict[str, nn.Module] = {"vae": MelVae(arguments["latent_dim"], mels, frames, width)}
        else:
            generator = MelGenerator(arguments["latent_dim"], mels, frames, width)
            networks = {"generator": generator, "critic": Critic(mels, frames, width)}
    return {name: runtime.place(network) for name, network in networks.items()}


def _training(
    kind: str, networks: Mapping[str, Any], spectrograms: Tensor, settings: Any, runtime: Runtime
) -> GeneratorTraining:
    rng = runtime.rng("speech prior", "training")
    if kind == VAE:
        return VaeTraining(networks["vae"], spectrograms, None, rng, settings, autocast=runtime.autocast)
    return WganTraining(
        networks["generator"], networks["critic"], spectrograms, rng, settings, autocast=runtime.autocast
    )
