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
from mi_image.dcgan import DcganGenerator
from micore.kit.generator_training import Source, copied, descend, moments, restore, train_generator
from micore.runtime import Runtime

__all__ = ["Encoder", "EncoderSettings", "EncoderTraining", "Pairs", "encoder_state", "resized", "restore_encoder"]

BETAS = (0.95, 0.999)
"""Of Adam (authors' code, of Ranger)."""
LARGEST = 256
"""Side of the encoder's own picture at most (authors' code)."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The encoder and its training.

    width: channels of the finest stages; iterations: steps of Adam, each on ``batch_size`` samples of the prior and as
    many public images; learning_rate: at the beginning, a tenth in the second third, and so on; code_weight: of the
    error of a sample's code.
    """

    width: int
    iterations: int
    batch_size: int
    learning_rate: float
    code_weight: float


class Encoder(nn.Module):
    """The prediction alignment encoder: predictions (B, K) to codes (B, num_ws, w_dim): W+, a code for each layer.

    A decoder draws a picture of the log-scores; a network of stages looks at it, and a linear layer tells the codes
    from what all stages saw, each at 3x3 places. Codes are deviations from the prior's mean code, in units of the
    codes' own.
    """

    def __init__(self, n_scores: int, num_ws: int, w_dim: int, size: int, channels: int, width: int) -> None:
        super().__init__()
        self.decoder = DcganGenerator(n_scores, size, channels, width)
        widths = [channels, *(width * 2**stage for stage in range(min(4, size.bit_length() - 3)))]
        self.stages = nn.ModuleList(map(_stage, widths[:-1], widths[1:]))
        self.codes = nn.Sequential(
            nn.Linear(9 * sum(widths[1:]), num_ws * w_dim), nn.Unflatten(1, (num_ws, w_dim))
        )  # fmt: skip
        for name in ("centre", "spread"):
            self.register_buffer(name, torch.zeros(w_dim))

    def fit_scales(self, styles: Tensor) -> None:
        """Take mean and deviations from codes (M, w_dim) of samples."""
        self.centre, self.spread = styles.mean(dim=0), styles.std(dim=0).clamp_min(1e-6)

    def look(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture (B, C, S, S) in [0, 1], and codes in units of the prior's deviations."""
        picture: Tensor = self.decoder(log_scores(scores))
        seen, features = picture, []
        for stage in self.stages:
            seen = stage(seen)
            features.append(functional.adaptive_avg_pool2d(seen, 3).flatten(1))
        return picture, self.codes(torch.cat(features, dim=1))

    def forward(self, scores: Tensor) -> Tensor:
        """Return codes (B, num_ws, w_dim)."""
        return self.centre + self.spread * self.look(scores)[1]


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


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
    """Steps on random batches (`micore.kit.generator_training.train_generator` takes them).

    The loss is the mean squared error of what the prior makes of the codes, of the encoder's own picture and, with a
    weight, of a sample's codes. Gradients go through the prior, which is the adversary's own.
    """

    def __init__(
        self, encoder: Encoder, render: Callable[[Tensor], Tensor], pairs: Pairs, settings: EncoderSettings, rng: Source
    ) -> None:
        self.encoder, self.render, self.pairs, self.settings = encoder.train(), render, pairs, settings
        self.rng, self.iteration = rng, 0
        self._adam = Adam(encoder.parameters(), settings.learning_rate, BETAS)

    def step(self) -> Tensor:
        """Take one step; return the loss."""
        settings = self.settings
        rate = settings.learning_rate * 0.1 ** (3 * self.iteration // settings.iterations)
        self._adam.param_groups[0]["lr"] = rate
        loss = self._loss()
        descend(self._adam, self.encoder, loss)
        self.iteration += 1
        return loss.detach()

    def _loss(self) -> Tensor:
        pairs, n = self.pairs, self.settings.batch_size
        own, public = (self.rng.integers(len(held), (n,)) for held in (pairs.styles, pairs.images))
        with torch.no_grad():
            wanted = torch.cat([self.render(pairs.styles[own]), pairs.images[public]])
        picture, moved = self.encoder.look(torch.cat([pairs.scores[own], pairs.public_scores[public]]))
        rendered = self.render(self.encoder.centre + self.encoder.spread * moved)
        known = (pairs.styles[own] - self.encoder.centre) / self.encoder.spread
        codes = (moved[:n] - known[:, None]).square().mean()
        images = functional.mse_loss(rendered, wanted) + functional.mse_loss(picture, resized(wanted, picture.shape[2]))
        return images + self.settings.code_weight * codes

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
    channels, side = pairs.images.shape[1:3]
    size = min(LARGEST, 2 ** (side.bit_length() - 1))
    arguments = {
        "n_scores": pairs.scores.shape[1], "num_ws": num_ws, "w_dim": pairs.styles.shape[1], "size": size,
        "channels": channels, "width": settings.width,
    }  # fmt: skip
    encoder = runtime.place(_network(arguments, runtime))
    encoder.fit_scales(pairs.styles)
    training = EncoderTraining(encoder, render, pairs, settings, runtime.rng("encoder", "training"))
    train_generator(training, settings.iterations, runtime, "training the encoder", runtime.checkpoints.load())
    return {"weights": copied(encoder.state_dict()), "arguments": arguments}


def resized(images: Tensor, side: int) -> Tensor:
    """Return images (N, C, S, S) in [0, 1] with this side."""
    if images.shape[2] == side:
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(0, 1)


def restore_encoder(state: Mapping[str, Any], runtime: Runtime) -> Encoder:
    """Build the encoder: on the device, in eval mode, without gradients."""
    encoder = _network(state["arguments"], runtime)
    encoder.load_state_dict(state["weights"])
    return runtime.maybe_compile(runtime.place(encoder.eval().requires_grad_(False)))


def _network(arguments: Mapping[str, Any], runtime: Runtime) -> Encoder:
    with runtime.seeded("encoder", "parameters"):
        return Encoder(**{name: int(value) for name, value in arguments.items()})
