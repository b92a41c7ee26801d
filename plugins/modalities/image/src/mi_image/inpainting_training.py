"""Training of the completion network on corrupted public images, resumable bit for bit.

Sources: Yuan et al. (SecretGen, ECCV 2022), section 3.3, equations 1 to 3; Zhang et al. (GMI, CVPR 2020); both authors'
code. Two Wasserstein critics with gradient penalty judge completions, one the whole image and one a patch of half
its side, and a diversity term keeps the latent from being ignored:

    L_G = -1/2 (D_patch + D_whole) - 1/2 mean |f(c1) - f(c2)| / mean |z1 - z2| + w |visible part of G - evidence|

with c1, c2 two completions of one image and f the features of a network.

Fidelity notes (paper / authors' code / here)
- f: SecretGen takes the target's features with white-box access and those of a face network of public data
  otherwise. Here the second is the pixels, as in Mao et al., "Mode Seeking Generative Adversarial Networks"
  (CVPR 2019): the framework has no public network for any domain.
- The last term: GMI has it (a sum over pixels), SecretGen only logs it. Evidence that is blurred and not hidden is
  compared with the completion blurred alike: nothing else would tie a completion to it.
- The patch of the local critic lies anywhere in the image, as in SecretGen; each image has its own.
- Images are drawn uniformly with replacement, not by shuffled epochs; one step of each critic for one of the
  generator, as in SecretGen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from mi_image.corruptions import Corruption, paste
from mi_image.dcgan import WganCritic
from mi_image.inpainting import InpaintingGenerator, patches, require_completable
from micore.kit.generator_training import Source, copied, descend, draw_samples, moments, restore, train_generator
from micore.kit.wgan import gradient_penalty
from micore.runtime import Runtime

__all__ = [
    "Features", "Inpainting", "InpaintingSettings", "InpaintingTraining", "diversity", "evidence_distance",
    "inpainting_state", "restore_inpainting",
]  # fmt: skip

Features = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to features (B, ...), differentiable."""


@dataclass(frozen=True, kw_only=True)
class InpaintingSettings:
    """Networks and training; the defaults are SecretGen's code at 64 px.

    width, critic_width: channels of the first stages; iterations: steps of the generator and of each critic
    (100 epochs of 40,000 images); evidence_weight: of the difference between a completion's visible part and the
    evidence, summed over pixels: 0 in SecretGen, 1 in GMI.
    """

    latent_dim: int = 100
    width: int = 32
    critic_width: int = 64
    iterations: int = 62_500
    batch_size: int = 64
    learning_rate: float = 4e-3
    betas: tuple[float, float] = (0.5, 0.999)
    penalty_weight: float = 10.0
    realism_weight: float = 0.5
    diversity_weight: float = 0.5
    evidence_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """The trained networks: completions, and the critics of a patch and of the whole image."""

    generator: InpaintingGenerator
    patch_critic: WganCritic
    critic: WganCritic

    def realism(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Return how real images (B, C, H, W) look, (B,), higher is more, with patches placed by numbers (B, 2)."""
        scores: Tensor = self.patch_critic(patches(images, numbers)) + self.critic(images)
        return scores.float()

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks by the names they are stored under."""
        return {"generator": self.generator, "patch_critic": self.patch_critic, "critic": self.critic}


def diversity(first: Tensor, second: Tensor, latents: Tensor, others: Tensor) -> Tensor:
    """Return mean |f1 - f2| / mean |z1 - z2| for features (B, ...) of two completions and their latents (B, d)."""
    return (first - second).abs().mean() / (latents - others).abs().mean()


def evidence_distance(completions: Tensor, images: Tensor, masks: Tensor, corruption: Corruption) -> Tensor:
    """Return the absolute difference between completions and what the evidence shows of them, summed per image, (B,).

    completions: not pasted. Hidden pixels count only where the evidence shows them softened.
    """
    shown = (completions - images).abs() * (1 - masks)
    if corruption.soften is not None:
        shown = shown + (corruption.soften(completions) - images).abs() * masks
    return shown.flatten(1).sum(dim=1)


class InpaintingTraining:
    """Train the generator and both critics step by step.

    images: whole public images (N, C, H, W), float in [0, 1] or uint8, on the device of the networks; features: of
    the diversity term, asked in generator steps only, once for two completions of each image. The critics must not
    be compiled, because the gradient penalty differentiates twice. autocast: mixed precision.
    """

    def __init__(
        self,
        networks: Inpainting,
        images: Tensor,
        corruption: Corruption,
        features: Features,
        rng: Source,
        settings: InpaintingSettings,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.networks, self.images, self.corruption, self.features = networks, images, corruption, features
        self.rng, self.settings, self.autocast = rng, settings, autocast
        self._adams = {
            name: Adam(network.train().parameters(), settings.learning_rate, settings.betas)
            for name, network in networks.networks().items()
        }
        self.iteration = 0

    def step(self) -> dict[str, Tensor]:
        """Do a step of each critic and one of the generator; return the losses, still on the device."""
        real, images, masks = self._draw()
        with torch.no_grad():
            completed = paste(self._complete(images, masks, self._latents()), images, masks)
        losses = {
            "critic": self._step_critic("critic", real, completed),
            "patch_critic": self._step_critic("patch_critic", *(self._patches(x) for x in (real, completed))),
            "generator": self._step_generator(images, masks),
        }
        self.iteration += 1
        return losses

    def _step_critic(self, name: str, real: Tensor, completed: Tensor) -> Tensor:
        critic = self.networks.networks()[name]
        with self.autocast():
            real_scores, scores = critic(torch.cat([real, completed])).float().chunk(2)
        penalty = gradient_penalty(critic, real, completed, self.rng.uniform((len(real),)))
        loss: Tensor = scores.mean() - real_scores.mean() + self.settings.penalty_weight * penalty
        descend(self._adams[name], critic, loss)
        return loss.detach()

    def _step_generator(self, images: Tensor, masks: Tensor) -> Tensor:
        settings = self.settings
        latents, others = self._latents(), self._latents()
        images, masks = images.repeat(2, 1, 1, 1), masks.repeat(2, 1, 1, 1)
        whole = self._complete(images, masks, torch.cat([latents, others]))
        completed = paste(whole, images, masks)
        with self.autocast():
            realism = self.networks.realism(completed, self.rng.uniform((len(completed), 2))).mean()
        loss = -settings.realism_weight * realism
        if settings.diversity_weight:
            with self.autocast():
                first, second = self.features(completed).float().chunk(2)
            loss = loss - settings.diversity_weight * diversity(first, second, latents, others)
        if settings.evidence_weight:
            distance = evidence_distance(whole, images, masks, self.corruption).mean()
            loss = loss + settings.evidence_weight * distance
        descend(self._adams["generator"], self.networks.generator, loss)
        return loss.detach()

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw whole images; return them, their corrupted copies and masks."""
        n = self.settings.batch_size
        real = draw_samples(self.images, n, self.rng)
        images, masks = self.corruption.apply(real, self.rng.uniform((n, self.corruption.n_numbers)))
        return real, images, masks

    def _complete(self, images: Tensor, masks: Tensor, latents: Tensor) -> Tensor:
        with self.autocast():
            whole: Tensor = self.networks.generator(images, masks, latents)
        return whole

    def _latents(self) -> Tensor:
        return self.rng.normal((self.settings.batch_size, self.settings.latent_dim))

    def _patches(self, images: Tensor) -> Tensor:
        return patches(images, self.rng.uniform((len(images), 2)))

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        return {
            "networks": {name: copied(network.state_dict()) for name, network in self.networks.networks().items()},
            "adams": {name: moments(adam) for name, adam in self._adams.items()},
            "random": self.rng.state(), "iteration": self.iteration,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, network in self.networks.networks().items():
            network.load_state_dict(state["networks"][name])
            restore(self._adams[name], state["adams"][name])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])


def inpainting_state(
    images: Tensor, corruption: Corruption, features: Features, settings: InpaintingSettings, runtime: Runtime
) -> Mapping[str, Any]:
    """Train the networks on whole public images (N, C, H, W) on the device; resumes from ``runtime.checkpoints``.

    Returns plain data for `restore_inpainting`.

    Raises: MiError for images of a size that the network cannot complete.
    """
    require_completable(images)
    arguments = {
        "latent_dim": settings.latent_dim, "size": images.shape[2], "channels": images.shape[1],
        "width": settings.width, "critic_width": settings.critic_width,
    }  # fmt: skip
    networks = _networks(arguments, runtime)
    for network in networks.networks().values():
        runtime.place(network)
    runtime.maybe_compile(networks.generator)
    training = InpaintingTraining(
        networks, images, corruption, features, runtime.rng("inpainting", "training"), settings, runtime.autocast
    )
    train_generator(
        training, settings.iterations, runtime, "training the completion network", runtime.checkpoints.load()
    )
    return {"arguments": arguments, **training.state()["networks"]}


def restore_inpainting(state: Mapping[str, Any], runtime: Runtime) -> Inpainting:
    """Build the networks from what `inpainting_state` returned: on the device, in eval mode, without gradients."""
    networks = _networks(state["arguments"], runtime)
    for name, network in networks.networks().items():
        network.load_state_dict(state[name])
        runtime.place(network.eval().requires_grad_(False))
    return networks


def _networks(arguments: Mapping[str, Any], runtime: Runtime) -> Inpainting:
    latent_dim, size, channels, width, critic_width = (
        int(arguments[name]) for name in ("latent_dim", "size", "channels", "width", "critic_width")
    )
    with runtime.seeded("inpainting", "parameters"):
        return Inpainting(
            generator=InpaintingGenerator(latent_dim, size, channels, width),
            patch_critic=WganCritic(size // 2, channels, critic_width),
            critic=WganCritic(size, channels, critic_width),
        )
