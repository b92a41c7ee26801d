"""Training of T-ACGAN, the conditional GAN whose discriminator learns to classify as a target with labels only.

Source: Nguyen, Chandrasegaran, Abdollahzadeh, Cheung: "Label-Only Model Inversion Attacks via Knowledge Transfer"
(LOKT, NeurIPS 2023), section 4.1, and the authors' released training script. Resumable bit for bit.

Fidelity notes (paper / authors' code / here)
- Losses: binary cross-entropy for real and generated images; alpha times the cross-entropy of the discriminator's
  class head, in its own steps on generated images with the target's labels of them, in the generator's steps with
  the labels that it was asked to draw. Real images have no label and do not train the class head.
- The first ``warm_up`` iterations have no class term, and the target is not asked.
- Real and generated images pass the discriminator together: the same loss, as it has no batch statistics, with one
  power iteration of the spectral norm for each step.
- Real images are drawn uniformly with replacement, not by shuffled epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from mi_image.acgan import TacganDiscriminator
from mi_image.conditional_gan import ConditionalGenerator
from micore.kit.generator_training import Source, copied, draw_samples, moments, restore

__all__ = ["TacganSettings", "TacganTraining", "discriminator_loss", "generator_loss"]

Labeller = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to the target's labels (B,), int64; counts what it asks."""


@dataclass(frozen=True, kw_only=True)
class TacganSettings:
    """How T-ACGAN is trained; the defaults are the authors' code for CelebA.

    warm_up: generator steps without class term, which come first; class_weight: alpha.
    """

    batch_size: int = 128
    critic_steps: int = 5
    warm_up: int = 1000
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    class_weight: float = 1.5


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Return -mean log sigmoid(real) - mean log(1 - sigmoid(generated)) of logits (B,)."""
    return functional.softplus(-real).mean() + functional.softplus(generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """Return -mean log sigmoid(generated) of logits (B,)."""
    return functional.softplus(-generated).mean()


class TacganTraining:
    """Train generator and discriminator step by step.

    images: (N, C, H, W), float in [0, 1] or uint8, on the device of the networks, without labels.
    discriminator: images to the logit of being real (B,) and class logits (B, K).
    ask: the target, about generated images only.
    autocast: makes the context for the networks' forward passes (mixed precision).
    """

    def __init__(
        self,
        generator: ConditionalGenerator,
        discriminator: TacganDiscriminator,
        images: Tensor,
        ask: Labeller,
        rng: Source,
        settings: TacganSettings = TacganSettings(),
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.generator, self.discriminator = generator.train(), discriminator.train()
        self.images, self.ask = images, ask
        self.rng, self.settings, self.autocast = rng, settings, autocast
        self.generator_adam = Adam(generator.parameters(), settings.learning_rate, settings.betas)
        self.discriminator_adam = Adam(discriminator.parameters(), settings.learning_rate, settings.betas)
        self.iteration = 0

    @property
    def guided(self) -> bool:
        """Whether the warm-up is over."""
        return self.iteration >= self.settings.warm_up

    def step(self) -> dict[str, Tensor]:
        """Do the discriminator's steps and one of the generator; return the last losses, still on the device."""
        for _ in range(self.settings.critic_steps):
            discriminator = self._step_discriminator()
        generator = self._step_generator()
        self.iteration += 1
        return {"discriminator": discriminator, "generator": generator}

    def _step_discriminator(self) -> Tensor:
        real = draw_samples(self.images, self.settings.batch_size, self.rng)
        with torch.no_grad(), self.autocast():
            generated, _ = self._generate()
        with self.autocast():
            realness, logits = self.discriminator(torch.cat([real, generated]))
        loss = discriminator_loss(*realness.float().chunk(2))
        if self.guided:
            loss = loss + self._class_loss(logits[len(real) :], self.ask(generated))
        _descend(self.discriminator_adam, self.discriminator, loss)
        return loss.detach()

    def _step_generator(self) -> Tensor:
        with self.autocast():
            images, labels = self._generate()
            realness, logits = self.discriminator(images)
        loss = generator_loss(realness.float())
        if self.guided:
            loss = loss + self._class_loss(logits, labels)
        _descend(self.generator_adam, self.generator, loss)
        return loss.detach()

    def _class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.settings.class_weight * functional.cross_entropy(logits.float(), labels)

    def _generate(self) -> tuple[Tensor, Tensor]:
        """Generate images of uniformly drawn labels."""
        rows = self.settings.batch_size
        latents = self.rng.normal((rows, self.generator.latent_dim))
        labels = self.rng.integers(self.generator.n_classes, (rows,))
        return self.generator(latents, labels), labels

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        return {
            "generator": copied(self.generator.state_dict()),
            "generator_adam": moments(self.generator_adam),
            "discriminator": copied(self.discriminator.state_dict()),
            "discriminator_adam": moments(self.discriminator_adam),
            "random": self.rng.state(),
            "iteration": self.iteration,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        restore(self.generator_adam, state["generator_adam"])
        restore(self.discriminator_adam, state["discriminator_adam"])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])


def _descend(adam: Adam, network: nn.Module, loss: Tensor) -> None:
    """Take one step on ``network`` alone; the class head stays as it is while no loss uses it."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = gradient
    adam.step()
