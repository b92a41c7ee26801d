"""The decoder, and how it learns on public images: mean squared error of the image that a score vector came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from mi_attack_inverse_net.batch_statistics import settle_statistics
from mi_image.dcgan import DcganGenerator
from micore.kit.generator_training import Source, copied, descend, moments, restore, train_generator
from micore.runtime import Runtime

__all__ = ["DecoderSettings", "DecoderTraining", "decoder_state", "restore_decoder"]


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """The decoder and its training; the defaults are the authors' code.

    width: channels of its finest hidden stage; iterations: steps of Adam with the AMSGrad correction.
    """

    width: int = 128
    iterations: int = 156_300
    batch_size: int = 128
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)


class DecoderTraining:
    """Steps on random batches (`micore.kit.generator_training.train_generator` takes them)."""

    def __init__(
        self, decoder: DcganGenerator, vectors: Tensor, images: Tensor, settings: DecoderSettings, rng: Source
    ) -> None:
        self.decoder, self.vectors, self.images = decoder.train(), vectors, images
        self.settings, self.rng, self.iteration = settings, rng, 0
        self._adam = Adam(decoder.parameters(), settings.learning_rate, settings.betas, amsgrad=True)

    def step(self) -> Tensor:
        """Take one step; return the loss."""
        rows = self.rng.integers(len(self.images), (self.settings.batch_size,))
        loss = functional.mse_loss(self.decoder(self.vectors[rows]), self.images[rows])
        descend(self._adam, self.decoder, loss)
        self.iteration += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes."""
        return {
            "decoder": copied(self.decoder.state_dict()), "adam": moments(self._adam), "random": self.rng.state(),
            "iteration": self.iteration,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.decoder.load_state_dict(state["decoder"])
        restore(self._adam, state["adam"])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])


def decoder_state(vectors: Tensor, images: Tensor, settings: DecoderSettings, runtime: Runtime) -> Mapping[str, Any]:
    """Train a decoder of vectors (N, K) to images (N, C, S, S); return plain data for `restore_decoder`.

    Resumes bit for bit from ``runtime.checkpoints``.
    """
    arguments = {"latent_dim": vectors.shape[1], "size": images.shape[2], "channels": images.shape[1],
                 "width": settings.width}  # fmt: skip
    decoder = runtime.place(_network(arguments, runtime))
    training = DecoderTraining(decoder, vectors, images, settings, runtime.rng("decoder", "training"))
    train_generator(training, settings.iterations, runtime, "training the decoder", runtime.checkpoints.load())
    settle_statistics(decoder, vectors)
    return {"weights": copied(decoder.state_dict()), "arguments": arguments}


def restore_decoder(state: Mapping[str, Any], runtime: Runtime) -> DcganGenerator:
    """Build the decoder: on the device, in eval mode, without gradients."""
    decoder = _network(state["arguments"], runtime)
    decoder.load_state_dict(state["weights"])
    return runtime.maybe_compile(runtime.place(decoder.eval().requires_grad_(False)))


def _network(arguments: Mapping[str, Any], runtime: Runtime) -> DcganGenerator:
    with runtime.seeded("decoder", "parameters"), torch.no_grad():
        return DcganGenerator(**{name: int(value) for name, value in arguments.items()})
