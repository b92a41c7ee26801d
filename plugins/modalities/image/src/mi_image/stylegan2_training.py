"""Training of small StyleGAN2-ADA generators on public images, resumable bit for bit.

Sources: StyleGAN2 (Karras et al., CVPR 2020: non-saturating logistic loss, lazy R1 regularisation, averaged
generator) and StyleGAN2-ADA (Karras et al., NeurIPS 2020: adaptive discriminator augmentation, section 3.1;
settings of the release's "auto" configuration, which is for small pictures).

Fidelity notes (paper / released code / here)

- Networks are small enough for a CPU: 64 channels at most where the release has 512, two mapping layers.
- No path length regularisation; style mixing is off by default (the release does the same for CIFAR-10).
- The release augments with eighteen operations. Here: crop, shift and rotation (`mi_image.augment`) for a
  share of the images that adapts itself, as in the paper, by the sign of the discriminator's logits.
- R1 is the gradient by the augmented image (release: by the image before augmentation).
- The release trains with fresh noise in every layer. Here noise is off: its strengths stay 0, so generated
  pictures depend on the latents alone.
- w_avg is the mean of the averaged network over 10,000 latents at the end of the training (release: a running mean
  of the network that is trained).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from mi_image.augment import Augmentation
from mi_image.stylegan2 import StyleGan2Generator
from mi_image.stylegan2_discriminator import Discriminator
from micore.errors import DataError
from micore.kit.generator_training import copied, draw_samples, moments, restore, train_generator
from micore.runtime import Runtime

__all__ = ["StyleGanSettings", "StyleGanTraining", "r1_penalty", "require_trainable", "train_stylegan"]

MEAN_SAMPLES = 10_000
"""Latents behind w_avg."""

AUGMENTATION = Augmentation(crop_area=0.8, flip=0.0, rotation=10.0, brightness=0.0, contrast=0.0)
"""What the discriminator is shown. Flips are left to `mirror`; colours stay: strong changes leak into what is made."""


@dataclass(frozen=True)
class StyleGanSettings:
    """How a StyleGAN2 is built and trained.

    latent_dim, w_dim: length of z and of w. mapping_layers: fully connected layers from z to w.
    channel_base, channel_max: a layer at r px has min(channel_base / r, channel_max) channels; None: 16 times the
    images' size, that is, 16 channels in the finest block.
    iterations, batch_size: generator steps, and images of each.
    learning_rate: of both networks' Adam, whose decays are 0 and 0.99.
    r1_weight: gamma, weight of the squared gradient of the discriminator at real images; None: the release's
    heuristic 0.0002 size^2 / batch_size. r1_interval: steps from one such penalty to the next.
    ada_target: mean sign of the logits of real images at which augmentation is strong enough; ada_images:
    after how many images it could have gone from none to all; both 0: no augmentation.
    style_mixing: share of the images whose later layers have a style of their own.
    mirror: share of the real images that are mirrored; None: half of colour images, no grey ones.
    ema_images: half-life of the average over generators, in images (at most 5 % of those seen so far).
    """

    latent_dim: int = 64
    w_dim: int = 64
    mapping_layers: int = 2
    channel_base: int | None = None
    channel_max: int = 64
    iterations: int = 2000
    batch_size: int = 16
    learning_rate: float = 0.01
    r1_weight: float | None = 0.3
    r1_interval: int = 16
    ada_target: float = 0.6
    ada_images: int = 20_000
    style_mixing: float = 0.0
    mirror: float | None = None
    ema_images: int = 10_000


def require_trainable(images: Tensor) -> None:
    """Refuse images that no StyleGAN2 can be trained on.

    Raises: DataError for other than (N >= 2, 1 or 3, S, S) with S a power of two from 8.
    """
    if images.ndim != 4 or len(images) < 2:
        raise DataError(f"a StyleGAN needs at least two public images, got a tensor of shape {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height != width or height < 8 or height & (height - 1):
        nearest = max(8, 2 ** round(torch.tensor(float(max(height, width))).log2().item()))
        raise DataError(
            f"a StyleGAN makes square images of 8, 16, 32, 64... px, not {height}x{width}",
            hint=f"-D size={nearest}",
        )


def train_stylegan(
    images: Tensor, settings: StyleGanSettings, runtime: Runtime, saved: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train a generator on public images and return it as plain data: its arguments and weights.

    The state of the training is offered as a checkpoint at each step; the caller loads it
    (``runtime.checkpoints.load()``) and gives it as ``saved``.

    Args:
        images: (N, C, S, S), float in [0, 1] or uint8; S a power of two from 8.
        settings: of networks and training.
        runtime: device, randomness, progress, checkpoints.
        saved: the state of a training of the same images and settings to go on from.

    Returns: ``{"arguments": {...}, "weights": {...}}``, for `mi_image.stylegan_prior.restore_stylegan`.

    Raises: DataError for images that do not fit.
    """
    require_trainable(images)
    training = StyleGanTraining(images.to(runtime.device), settings, runtime)
    train_generator(training, settings.iterations, runtime, "training the StyleGAN", saved)
    return training.result()


class StyleGanTraining:
    """Trains generator and discriminator step by step."""

    def __init__(self, images: Tensor, settings: StyleGanSettings, runtime: Runtime) -> None:
        self.images, self.settings, self.runtime = images, settings, runtime
        self.arguments = _arguments(settings, images)
        with runtime.seeded("stylegan", "parameters"):
            generator = StyleGan2Generator(**self.arguments)
            critic = Discriminator(
                generator.size, generator.channels, self.arguments["channel_base"], settings.channel_max
            )
        # The plain layout: channels last gains 5 to 10 % here.
        self.generator = runtime.place(generator)
        self.generator.mapping.eval()  # no running mean of w: the mean is measured at the end
        self.critic = runtime.place(critic).train()
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        runtime.maybe_compile(self.generator.synthesis)  # not the critic: R1 differentiates its backward pass
        self.rng = runtime.rng("stylegan", "training")
        self.generator_adam = Adam(self.generator.parameters(), settings.learning_rate, (0.0, 0.99))
        lazy = settings.r1_interval / (settings.r1_interval + 1)  # one more step per interval
        self.critic_adam = Adam(self.critic.parameters(), settings.learning_rate * lazy, (0.0, 0.99**lazy))
        self.strength = torch.zeros((), device=runtime.device)
        self.iteration = 0

    def step(self) -> dict[str, Tensor]:
        """Do one step of each network; return the losses, still on the device."""
        generator = self._step_generator()
        critic = self._step_critic()
        if self.iteration % self.settings.r1_interval == 0 and self._r1_weight() > 0:
            self._step_penalty()
        self.iteration += 1
        self._update_average()
        return {"generator": generator, "critic": critic}

    def result(self) -> dict[str, Any]:
        """Return the averaged generator, its w_avg measured anew, as plain data."""
        average = copy.deepcopy(self.average)
        latents = self.runtime.rng("stylegan", "mean").normal((MEAN_SAMPLES, self.settings.latent_dim))
        with torch.no_grad():
            average.mapping.w_avg.copy_(average.mapping(latents)[:, 0].mean(dim=0))
        return {"arguments": dict(self.arguments), "weights": copied(average.state_dict())}

    def _step_generator(self) -> Tensor:
        with self.runtime.autocast():
            loss = functional.softplus(-self.critic(self._augment(self._generate()))).mean()
        return _descend(self.generator_adam, loss)

    def _step_critic(self) -> Tensor:
        real = self._draw_real()
        with torch.no_grad(), self.runtime.autocast():
            generated = self._generate()
        with self.runtime.autocast():
            logits = self.critic(self._augment(torch.cat([real, generated.to(real.dtype)])))
        real_logits, logits = logits.float().chunk(2)
        self._adapt(real_logits.detach())
        loss = functional.softplus(-real_logits).mean() + functional.softplus(logits).mean()
        return _descend(self.critic_adam, loss)

    def _step_penalty(self) -> Tensor:
        """Regularise lazily: the rarer, the more weight (StyleGAN2, section 3.1)."""
        penalty = r1_penalty(self.critic, self._augment(self._draw_real()))
        return _descend(self.critic_adam, penalty.mean() * (self._r1_weight() / 2 * self.settings.r1_interval))

    def _r1_weight(self) -> float:
        weight = self.settings.r1_weight
        return weight if weight is not None else 2e-4 * self.images.shape[-1] ** 2 / self.settings.batch_size

    def _draw_real(self) -> Tensor:
        """Draw images uniformly, in [-1, 1]."""
        settings = self.settings
        images = draw_samples(self.images, settings.batch_size, self.rng)
        mirror = settings.mirror if settings.mirror is not None else (0.5 if images.shape[1] == 3 else 0.0)
        if mirror:
            chosen = self.rng.uniform((settings.batch_size, 1, 1, 1)) < mirror
            images = torch.where(chosen, images.flip(3), images)
        return 2 * images - 1

    def _generate(self) -> Tensor:
        """Generate pictures of about [-1, 1]."""
        rows = self.settings.batch_size
        ws = self.generator.mapping(self.rng.normal((rows, self.settings.latent_dim)))
        if self.settings.style_mixing:
            ws = self._mix(ws)
        pictures: Tensor = self.generator.synthesis(ws, noise="none")
        return pictures

    def _mix(self, ws: Tensor) -> Tensor:
        """Give the layers behind a random one another style, in a share of the rows."""
        rows, layers = ws.shape[:2]
        others = self.generator.mapping(self.rng.normal((rows, self.settings.latent_dim)))
        first = 1 + self.rng.integers(layers - 1, (rows, 1, 1))
        chosen = self.rng.uniform((rows, 1, 1)) < self.settings.style_mixing
        behind = torch.arange(layers, device=ws.device)[None, :, None] >= first
        return torch.where(chosen & behind, others, ws)

    def _augment(self, pictures: Tensor) -> Tensor:
        """Warp a share of the pictures, the same share of real and generated ones."""
        if not self.settings.ada_images:
            return pictures
        chosen = self.rng.uniform((len(pictures), 1, 1, 1)) < self.strength
        warped = AUGMENTATION.apply(pictures, AUGMENTATION.draw(self.rng, len(pictures)))
        return torch.where(chosen, warped, pictures)

    def _adapt(self, real_logits: Tensor) -> None:
        """Augment more while the discriminator is too sure of real images (ADA, equation 1, r_t)."""
        if self.settings.ada_images:
            excess = real_logits.sign().mean() - self.settings.ada_target
            change = excess.sign() * (self.settings.batch_size / self.settings.ada_images)
            self.strength = (self.strength + change).clamp(0, 1)

    @torch.no_grad()
    def _update_average(self) -> None:
        seen = self.iteration * self.settings.batch_size
        half_life = min(self.settings.ema_images, 0.05 * seen)
        weight = 1 - 0.5 ** (self.settings.batch_size / half_life)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), weight)

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        return {
            "generator": copied(self.generator.state_dict()),
            "critic": copied(self.critic.state_dict()),
            "average": copied(self.average.state_dict()),
            "generator_adam": moments(self.generator_adam),
            "critic_adam": moments(self.critic_adam),
            "strength": self.strength.clone(),
            "random": self.rng.state(),
            "iteration": self.iteration,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name in ("generator", "critic", "average"):
            getattr(self, name).load_state_dict(state[name])
        restore(self.generator_adam, state["generator_adam"])
        restore(self.critic_adam, state["critic_adam"])
        self.strength = state["strength"].to(self.strength.device)
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])


def r1_penalty(critic: nn.Module, images: Tensor) -> Tensor:
    """Return the squared length of the gradient of each image's logit, (B,), differentiable in the weights.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, equation 9.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def _descend(adam: Adam, loss: Tensor) -> Tensor:
    """Take one step on the parameters of ``adam`` that the loss depends on; return the loss without its graph."""
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    adam.step()
    return loss.detach()


def _arguments(settings: StyleGanSettings, images: Tensor) -> dict[str, Any]:
    """Return the arguments of the generator that makes such images."""
    base = settings.channel_base if settings.channel_base is not None else 16 * images.shape[3]
    return {
        "latent_dim": settings.latent_dim, "size": images.shape[3], "channels": images.shape[1],
        "w_dim": settings.w_dim, "n_mapping_layers": settings.mapping_layers,
        "channel_base": base, "channel_max": settings.channel_max,
    }  # fmt: skip
