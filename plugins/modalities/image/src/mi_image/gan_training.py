"""Hinge training of the conditional GAN on pseudo-labelled public images, resumable bit for bit.

Source: Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial
Network", AAAI 2023, section 3.2 and the authors' released training script.

Fidelity notes (paper / authors' code / here)
- The authors run the target in every critic step to log its accuracy; here the target is only run in
  generator steps.
- The authors' critic scores real and generated images in two passes; here in one pass over both, which is
  the same loss (the critic has no batch statistics) with one power iteration of the spectral norm per step
  rather than two.
- An image and its pseudo label are drawn uniformly with replacement, not by shuffled epochs.
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

from mi_image.augment import Augmentation
from micore.kit.generator_training import (
    Source,
    as_float,
    copied,
    descend,
    frozen_copy,
    moments,
    restore,
    train_generator,
)

__all__ = ["ConditionalGanTraining", "GanSettings", "Guidance", "Source", "critic_loss", "train_generator"]

Guidance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GanSettings:
    """How the conditional GAN is trained; the defaults are the authors' code (Yuan et al., 2023)."""

    batch_size: int = 64
    critic_steps: int = 5
    learning_rate: float = 2e-4
    critic_learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    guidance_weight: float = 0.2
    dequantisation: float = 1 / 256


def critic_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Return the hinge loss of the critic's scores (B,) of real and generated images."""
    return functional.relu(1 - real).mean() + functional.relu(1 + generated).mean()


class ConditionalGanTraining:
    """Train generator and critic step by step.

    images: (N, C, H, W), float in [0, 1] or uint8, on the device of the networks.
    members: (K, n_top) rows of `images` that carry each pseudo label.
    guidance: the identity loss, called with augmented images (B, C, H, W) in [0, 1] and labels (B,),
    returns (B,).
    augmentation: what is done to generated images before `guidance` sees them; None: nothing.
    autocast: makes the context for the networks' forward passes (mixed precision).
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        images: Tensor,
        members: Tensor,
        rng: Source,
        settings: GanSettings = GanSettings(),
        guidance: Guidance | None = None,
        augmentation: Augmentation | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.generator, self.critic = generator.train(), critic.train()
        self.images, self.members = images, members
        self.rng, self.settings = rng, settings
        self.guidance, self.augmentation, self.autocast = guidance, augmentation, autocast
        rates = settings.learning_rate, settings.critic_learning_rate
        self.generator_adam = Adam(generator.parameters(), rates[0], settings.betas)
        self.critic_adam = Adam(critic.parameters(), rates[1], settings.betas)
        self.iteration = 0

    def step(self) -> dict[str, Tensor]:
        """Do the critic steps and one generator step; return the last losses, still on the device."""
        for _ in range(self.settings.critic_steps):
            critic = self._step_critic()
        losses = self._step_generator()
        self.iteration += 1
        return {"critic": critic, **losses}

    @property
    def result(self) -> nn.Module:
        """A copy of the generator to attack with, in eval mode and without gradients."""
        return frozen_copy(self.generator)

    def _step_critic(self) -> Tensor:
        real, real_labels = self._draw_real()
        with torch.no_grad(), self.autocast():
            generated, labels = self._generate()
        images = torch.cat([real, generated])
        with self.autocast():
            real_scores, scores = self.critic(images, torch.cat([real_labels, labels])).chunk(2)
        loss = critic_loss(real_scores, scores)
        descend(self.critic_adam, self.critic, loss)
        return loss.detach()

    def _step_generator(self) -> dict[str, Tensor]:
        with self.autocast():
            images, labels = self._generate()
            realism = -self.critic(images, labels).mean()
        identity = self._identity_loss(images, labels)
        descend(self.generator_adam, self.generator, realism + self.settings.guidance_weight * identity)
        return {"generator": realism.detach(), "identity": identity.detach()}

    def _draw_real(self) -> tuple[Tensor, Tensor]:
        """Draw (image, pseudo label) pairs uniformly; images get the dequantisation noise U(0, 1/256)."""
        drawn = self.rng.integers(self.members.numel(), (self.settings.batch_size,))
        images = as_float(self.images[self.members.flatten()[drawn]])
        noise = self.rng.uniform(tuple(images.shape)) * self.settings.dequantisation
        return images + noise, drawn // self.members.shape[1]

    def _generate(self) -> tuple[Tensor, Tensor]:
        """Generate images of uniformly drawn labels."""
        rows = self.settings.batch_size
        latents = self.rng.normal((rows, self.generator.latent_dim))
        labels = self.rng.integers(self.members.shape[0], (rows,))
        return self.generator(latents, labels), labels

    def _identity_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.guidance is None or self.settings.guidance_weight == 0:
            return images.new_zeros(())
        if self.augmentation is not None:
            images = self.augmentation.apply(images, self.augmentation.draw(self.rng, len(images)))
        with self.autocast():
            return self.guidance(images, labels).float().mean()

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, and the members, as nested dicts of tensors and ints."""
        networks = {"generator": self.generator, "critic": self.critic}
        return {
            "networks": {name: copied(network.state_dict()) for name, network in networks.items()},
            "generator_adam": moments(self.generator_adam),
            "critic_adam": moments(self.critic_adam),
            "random": self.rng.state(),
            "members": self.members,
            "iteration": self.iteration,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.generator.load_state_dict(state["networks"]["generator"])
        self.critic.load_state_dict(state["networks"]["critic"])
        restore(self.generator_adam, state["generator_adam"])
        restore(self.critic_adam, state["critic_adam"])
        self.rng.load(state["random"])
        self.members = state["members"].to(self.members.device)
        self.iteration = int(state["iteration"])
