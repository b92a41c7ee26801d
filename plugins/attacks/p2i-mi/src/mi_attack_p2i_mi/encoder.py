"""The encoder from predictions to codes of a StyleGAN, one code per layer, and how it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from mi_attack_p2i_mi.predictions import log_scores
from mi_image.gan_steps import Source, copied, descend, moments, restore, train_gan
from micore.runtime import Runtime

__all__ = ["Encoder", "EncoderSettings", "EncoderTraining", "Pairs", "encoder_state", "restore_encoder"]


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The encoder and its training.

    hidden: units of each of its two hidden layers; iterations: steps of Adam, each on ``batch_size`` samples of the
    prior and as many public images; code_weight, image_weight: of the two losses.
    """

    hidden: int
    iterations: int
    batch_size: int
    learning_rate: float
    code_weight: float
    image_weight: float


class Encoder(nn.Module):
    """Map predictions (B, K) to codes (B, num_ws, w_dim): W+, a code for each layer.

    It reads log-scores, each scaled to the mean and deviation that it has in the training, and writes deviations from
    the prior's mean code, in units of the codes' own.
    """

    def __init__(self, n_scores: int, num_ws: int, w_dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_scores, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, num_ws * w_dim), nn.Unflatten(1, (num_ws, w_dim)),
        )  # fmt: skip
        for name, size in (("log_mean", n_scores), ("log_spread", n_scores), ("centre", w_dim), ("spread", w_dim)):
            self.register_buffer(name, torch.zeros(size))

    def fit_scales(self, scores: Tensor, styles: Tensor) -> None:
        """Take the scales from predictions (N, K) and codes (M, w_dim)."""
        logs = log_scores(scores)
        self.log_mean, self.log_spread = logs.mean(dim=0), logs.std(dim=0).clamp_min(1e-3)
        self.centre, self.spread = styles.mean(dim=0), styles.std(dim=0).clamp_min(1e-6)

    def deviations(self, scores: Tensor) -> Tensor:
        """Return codes in units of the prior's deviations, (B, num_ws, w_dim)."""
        read: Tensor = self.layers((log_scores(scores) - self.log_mean) / self.log_spread)
        return read

    def forward(self, scores: Tensor) -> Tensor:
        """Return codes (B, num_ws, w_dim)."""
        return self.centre + self.spread * self.deviations(scores)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What the encoder learns from: samples of the prior, whose codes are known, and public images.

    styles (N, w_dim), scores (N, K); images (M, C, S, S), in the size of the prior's pictures, public_scores (M, K).
    """

    styles: Tensor
    scores: Tensor
    images: Tensor
    public_scores: Tensor


class EncoderTraining:
    """Steps on random batches (`mi_image.gan_steps.train_gan` takes them).

    Codes: mean squared error of a sample's code, in units of the prior's deviations. Images: mean squared error of what
    the prior makes of the codes, for samples and public images; gradients go through the prior, which is the
    adversary's own.
    """

    def __init__(
        self, encoder: Encoder, render: Callable[[Tensor], Tensor], pairs: Pairs, settings: EncoderSettings, rng: Source
    ) -> None:
        self.encoder, self.render, self.pairs, self.settings = encoder.train(), render, pairs, settings
        self.rng, self.iteration = rng, 0
        self._adam = Adam(encoder.parameters(), settings.learning_rate)

    def step(self) -> Tensor:
        """Take one step; return the loss."""
        loss = self._loss()
        descend(self._adam, self.encoder, loss)
        self.iteration += 1
        return loss.detach()

    def _loss(self) -> Tensor:
        pairs, n = self.pairs, self.settings.batch_size
        own, public = (self.rng.integers(len(held), (n,)) for held in (pairs.styles, pairs.images))
        moved = self.encoder.deviations(torch.cat([pairs.scores[own], pairs.public_scores[public]]))
        known = (pairs.styles[own] - self.encoder.centre) / self.encoder.spread
        codes = (moved[:n] - known[:, None]).square().mean()
        if not self.settings.image_weight:
            return self.settings.code_weight * codes
        with torch.no_grad():
            wanted = torch.cat([self.render(pairs.styles[own]), pairs.images[public]])
        images = functional.mse_loss(self.render(self.encoder.centre + self.encoder.spread * moved), wanted)
        return self.settings.code_weight * codes + self.settings.image_weight * images

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes."""
        return {
            "encoder": copied(self.encoder.state_dict()), "adam": moments(self._adam), "random": self.rng.state(),
            "iteration": self.iteration,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.encoder.load_state_dict(state["encoder"])
        restore(self._adam, state["adam"])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])


def encoder_state(
    render: Callable[[Tensor], Tensor], num_ws: int, pairs: Pairs, settings: EncoderSettings, runtime: Runtime
) -> Mapping[str, Any]:
    """Train an encoder; return plain data for `restore_encoder`. Resumes bit for bit from ``runtime.checkpoints``."""
    arguments = {"n_scores": pairs.scores.shape[1], "num_ws": num_ws, "w_dim": pairs.styles.shape[1],
                 "hidden": settings.hidden}  # fmt: skip
    encoder = runtime.place(_network(arguments, runtime))
    encoder.fit_scales(torch.cat([pairs.scores, pairs.public_scores]), pairs.styles)
    training = EncoderTraining(encoder, render, pairs, settings, runtime.rng("encoder", "training"))
    train_gan(training, settings.iterations, runtime, "training the encoder", runtime.checkpoints.load())
    return {"weights": copied(encoder.state_dict()), "arguments": arguments}


def restore_encoder(state: Mapping[str, Any], runtime: Runtime) -> Encoder:
    """Build the encoder: on the device, in eval mode, without gradients."""
    encoder = _network(state["arguments"], runtime)
    encoder.load_state_dict(state["weights"])
    return runtime.maybe_compile(runtime.place(encoder.eval().requires_grad_(False)))


def _network(arguments: Mapping[str, Any], runtime: Runtime) -> Encoder:
    with runtime.seeded("encoder", "parameters"):
        return Encoder(**{name: int(value) for name, value in arguments.items()})
