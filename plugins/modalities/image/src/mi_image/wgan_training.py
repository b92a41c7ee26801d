"""Wasserstein training (gradient penalty) of the DCGAN prior on public images, resumable bit for bit.

Sources: Gulrajani et al., "Improved Training of Wasserstein GANs" (NeurIPS 2017), equation 3 and algorithm 1;
settings of Zhang et al., "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks"
(CVPR 2020), authors' code. No target is asked, so attacks share one GAN of the same public images (`gan_state`).

Fidelity notes (paper / authors' code / here)
- The authors train for epochs over shuffled images and step the generator at every fifth batch; here images
  are drawn uniformly with replacement, and one iteration is all critic steps and then one of the generator:
  280 epochs of 30,000 images in batches of 64 are 26,250 iterations.
- The gradient penalty is computed in float32 even in mixed precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from mi_image.dcgan import DcganGenerator, WganCritic
from mi_image.gan_steps import Source, copied, descend, draw_images, moments, restore, train_gan
from micore.errors import MiError
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = [
    "SMALL", "SMOKE", "WganSettings", "WganTraining", "gan_state", "gradient_penalty", "require_makeable",
    "restore_gan",
]  # fmt: skip

SIZES = (8, 16, 32, 64, 128, 256)


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


SMALL = {
    "latent_dim": 100, "width": 16, "iterations": 800, "batch_size": 32, "critic_steps": 1, "learning_rate": 2e-3,
}  # fmt: skip
"""Settings for a thousand small grey pictures on one core: recognisable digits of 16 px after 15 s."""
SMOKE = {
    "latent_dim": 16, "width": 8, "iterations": 60, "batch_size": 16, "critic_steps": 1, "learning_rate": 2e-3,
}  # fmt: skip
"""Settings that learn the toy problem of the conformance checks, in about a second."""


def gradient_penalty(critic: nn.Module, real: Tensor, generated: Tensor, shares: Tensor) -> Tensor:
    """Return the mean of (|grad D| - 1)^2 at x = s real + (1 - s) generated, for shares s (B,) in [0, 1).

    real, generated: (B, C, H, W). Equation 3 of Gulrajani et al. (2017), without its weight.
    """
    weights = shares.view(-1, 1, 1, 1)
    between = (weights * real + (1 - weights) * generated).detach().requires_grad_(True)
    (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (slopes.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


class WganTraining:
    """Train generator and critic step by step.

    images: (N, C, H, W), float in [0, 1] or uint8, on the device of the networks.
    critic: images to scores (B,), of each image by itself; it must not be compiled, because the gradient
    penalty differentiates twice.
    autocast: makes the context for the networks' forward passes (mixed precision).
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        images: Tensor,
        rng: Source,
        settings: WganSettings,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.generator, self.critic = generator.train(), critic.train()
        self.images, self.rng, self.settings, self.autocast = images, rng, settings, autocast
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
        real = draw_images(self.images, n, self.rng)
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
        images: Tensor = self.generator(self.rng.normal((self.settings.batch_size, self.settings.latent_dim)))
        return images

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


def require_makeable(images: Tensor) -> None:
    """Check that the DCGAN can make images like these, (N, C, H, W), before any work is done.

    Raises MiError unless they are square, of 8, 16, 32, 64, 128 or 256 px.
    """
    height, width = images.shape[2:]
    if height != width or height not in SIZES:
        raise MiError(
            f"the DCGAN makes square images of {', '.join(map(str, SIZES))} pixels, not {height}x{width}",
            hint="resize the data (-d size=...) or crop it to squares",
        )


def gan_state(images: Tensor, settings: WganSettings, runtime: Runtime) -> Mapping[str, Any]:
    """Train the GAN on public images (N, C, H, W), or take it from the shelf if another attack left it there.

    Resumes bit for bit from ``runtime.checkpoints`` (without a shelf; with one it has a checkpoint of its own).
    Returns plain data for `restore_gan`: weights of ``generator`` and ``critic``, and the ``arguments`` they
    were built with.

    Raises: MiError for images of a size that the GAN cannot make.
    """
    require_makeable(images)
    arguments = {"latent_dim": settings.latent_dim, "size": images.shape[2], "channels": images.shape[1],
                 "width": settings.width}  # fmt: skip

    def work(stage: Runtime) -> Mapping[str, Any]:
        generator, critic = (stage.place(network) for network in _networks(arguments, stage))
        stage.maybe_compile(generator)
        training = WganTraining(generator, critic, images, stage.rng("wgan", "training"), settings, stage.autocast)
        train_gan(training, settings.iterations, stage, "training the public GAN", stage.checkpoints.load())
        return {"generator": copied(generator.state_dict()), "critic": copied(critic.state_dict()),
                "arguments": arguments}  # fmt: skip

    return shared("wgan", {"settings": asdict(settings), "images": tensor_digest(images)}, work, runtime)


def restore_gan(state: Mapping[str, Any], runtime: Runtime) -> tuple[DcganGenerator, WganCritic]:
    """Build generator and critic from what `gan_state` returned: on the device, in eval mode, without gradients."""
    generator, critic = _networks(state["arguments"], runtime)
    for network, name in ((generator, "generator"), (critic, "critic")):
        network.load_state_dict(state[name])
        runtime.maybe_compile(runtime.place(network.eval().requires_grad_(False)))
    return generator, critic


def _networks(arguments: Mapping[str, Any], runtime: Runtime) -> tuple[DcganGenerator, WganCritic]:
    size, channels, width = (int(arguments[name]) for name in ("size", "channels", "width"))
    with runtime.seeded("wgan", "parameters"):
        generator = DcganGenerator(int(arguments["latent_dim"]), size, channels, width)
        critic = WganCritic(size, channels, width)
    return generator, critic
