"""A variational auto-encoder of log-mel spectrograms, plain or given a voiceprint (Kingma & Welling, ICLR 2014).

Given something known of a clip besides (Sohn et al., NeurIPS 2015), such as its voiceprint, the latents need only hold
what that does not: what is said, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam

from mi_audio.mel_networks import MelGenerator, MelReader
from micore.kit.generator_training import Source, copied, descend, moments, restore

__all__ = ["MelVae", "VaeSettings", "VaeTraining"]

Cycle = Callable[[Tensor, Tensor], Tensor]
"""Scaled spectrograms made (B, mels, frames) and their conditions (B, d) to losses (B,)."""


@dataclass(frozen=True, kw_only=True)
class VaeSettings:
    """The auto-encoder and how it is trained.

    kl_weight: of the divergence, summed over latents, beside the squared error, a mean over a spectrogram's scaled
    values. cycle_weight: of what the target says of drawn spectrograms, where it is asked.
    """

    latent_dim: int = 32
    width: int = 64
    iterations: int = 700
    batch_size: int = 48
    learning_rate: float = 2e-3
    kl_weight: float = 2e-3
    cycle_weight: float = 0.0


class MelVae(nn.Module):
    """Encoder and generator of scaled spectrograms; see `MelGenerator` for the arguments."""

    def __init__(self, latent_dim: int, mels: int, frames: int, width: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.encoder = MelReader(mels, frames, width, 2 * latent_dim, condition_dim)
        self.generator = MelGenerator(latent_dim, mels, frames, width, condition_dim)

    def encode(self, spectrograms: Tensor, conditions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latents, (B, latent_dim) each."""
        mean, log_variance = self.encoder(spectrograms, conditions).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 10)


class VaeTraining:
    """Train step by step (`micore.kit.generator_training.GeneratorTraining`).

    spectrograms: (N, mels, frames), scaled; conditions: (N, d) or None; cycle: what to say of spectrograms drawn for
    given conditions, None: nothing.
    """

    def __init__(
        self, vae: MelVae, spectrograms: Tensor, conditions: Tensor | None, rng: Source, settings: VaeSettings,
        *, cycle: Cycle | None = None, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:  # fmt: skip
        self.vae, self.spectrograms, self.conditions = vae.train(), spectrograms, conditions
        self.rng, self.settings, self.cycle, self.autocast = rng, settings, cycle, autocast
        self.adam = Adam(vae.parameters(), settings.learning_rate)
        self.iteration = 0

    def step(self) -> Tensor:
        """Take one step; return the loss, still on the device."""
        rows = self.rng.integers(len(self.spectrograms), (self.settings.batch_size,))
        real = self.spectrograms[rows]
        conditions = None if self.conditions is None else self.conditions[rows]
        with self.autocast():
            loss = self._loss(real, conditions)
        descend(self.adam, self.vae, loss)
        self.iteration += 1
        return loss.detach()

    def _loss(self, real: Tensor, conditions: Tensor | None) -> Tensor:
        settings = self.settings
        mean, log_variance = (part.float() for part in self.vae.encode(real, conditions))
        noise = self.rng.normal((len(real), settings.latent_dim))
        made = self.vae.generator(mean + (log_variance / 2).exp() * noise, conditions).float()
        error = (made - real).square().mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1).mean()
        loss: Tensor = error + settings.kl_weight * divergence
        if self.cycle is not None and conditions is not None and settings.cycle_weight:
            drawn = self.vae.generator(self.rng.normal((len(real), settings.latent_dim)), conditions)
            loss = loss + settings.cycle_weight * self.cycle(drawn.float(), conditions).mean()
        return loss

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        return {
            "vae": copied(self.vae.state_dict()), "adam": moments(self.adam), "random": self.rng.state(),
            "iteration": self.iteration,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.vae.load_state_dict(state["vae"])
        restore(self.adam, state["adam"])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])
