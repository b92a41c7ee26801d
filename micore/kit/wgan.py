"""Wasserstein training with gradient penalty of a generator of samples of any shape, resumable bit for bit.

Sources: Gulrajani et al., "Improved Training of Wasserstein GANs" (NeurIPS 2017), equation 3 and algorithm 1;
settings of Zhang et al., "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks"
(CVPR 2020), authors' code.

Fidelity notes (paper / authors' code / here)
- The authors train for epochs over shuffled samples and step the generator at every fifth batch; here samples
  are drawn uniformly with replacement, and one iteration is all critic steps and then one of the generator:
  280 epochs of 30,000 images in batches of 64 are 26,250 iterations.
- The gradient penalty is computed in float32 even in mixed precision.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from micore.kit.generator_training import Source, copied, descend, draw_samples, moments, restore

__all__ = ["WganSettings", "WganTraining", "gradient_penalty"]


@dataclass(frozen=True, kw_only=True)
class WganSettings:
    """The GAN and how it is trained; the defaults are the authors' code (Zhang et al., 2020).

    width: channels of the finest hidden stage of the generator and the first of the critic.
    iterations: generator steps, each after ``critic_steps`` steps of the critic.
    """

    latent_dim: int = 100
    width: int = 64
    iterations: int = 26_250
    batch_size: int = 64
    critic_steps: int = 5
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    penalty_weight: float = 10.0


def gradient_penalty(critic: nn.Module, real: Tensor, generated: Tensor, shares: Tensor) -> Tensor:
    """Return the mean of (|grad D| - 1)^2 at x = s real + (1 - s) generated, for shares s (B,) in [0, 1).

    real, generated: (B, ...). Equation 3 of Gulrajani et al. (2017), without its weight.
    """
    weights = shares.view(-1, *[1] * (real.ndim - 1))
    between = (weights * real + (1 - weights) * generated).detach().requires_grad_(True)
    (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (slopes.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


class WganTraining:
    """Train generator and critic step by step.

    samples: (N, ...), float, or uint8 that stand for [0, 1], on the device of the networks.
    critic: samples to scores (B,), of each sample by itself; it must not be compiled, because the gradient
    penalty differentiates twice.
    autocast: makes the context for the networks' forward passes (mixed precision).
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        samples: Tensor,
        rng: Source,
        settings: WganSettings,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.generator, self.critic = generator.train(), critic.train()
        self.samples, self.rng, self.settings, self.autocast = samples, rng, settings, autocast
        self.generator_adam = Adam(generator.parameters(), settings.learning_rate, settings.betas)
        self.critic_adam = Adam(critic.parameters(), settings.learning_rate, settings.betas)
        self.iteration = 0

    def step(self) -> dict[str, Tensor]:
        """Do the critic steps and one generator step; return the last losses, still on the device."""
        for _ in range(self.settings.critic_steps):
            critic = self._step_critic()
        generator = self._step_generator()
        self.iteration += 1
        return {"critic": critic, "generator": generator}

    def _step_critic(self) -> Tensor:
        n = self.settings.batch_size
        real = draw_samples(self.samples, n, self.rng)
        with torch.no_grad(), self.autocast():
            generated = self._generate()
        with self.autocast():
            real_scores, scores = self.critic(torch.cat([real, generated])).float().chunk(2)
        penalty = gradient_penalty(self.critic, real, generated.float(), self.rng.uniform((n,)))
        loss: Tensor = scores.mean() - real_scores.mean() + self.settings.penalty_weight * penalty
        descend(self.critic_adam, self.critic, loss)
        return loss.detach()

    def _step_generator(self) -> Tensor:
        with self.autocast():
            loss: Tensor = -self.critic(self._generate()).float().mean()
        descend(self.generator_adam, self.generator, loss)
        return loss.detach()

    def _generate(self) -> Tensor:
        samples: Tensor = self.generator(self.rng.normal((self.settings.batch_size, self.settings.latent_dim)))
        return samples

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        return {
            "generator": copied(self.generator.state_dict()), "generator_adam": moments(self.generator_adam),
            "critic": copied(self.critic.state_dict()), "critic_adam": moments(self.critic_adam),
            "random": self.rng.state(), "iteration": self.iteration,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        restore(self.generator_adam, state["generator_adam"])
        restore(self.critic_adam, state["critic_adam"])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])
