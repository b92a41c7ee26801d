"""KED-MI's inversion-specific GAN: a critic that also learns the target's soft labels, resumable bit for bit.

Source: Chen, Kahla, Jia, Qi: "Knowledge-Enriched Distributional Model Inversion Attacks", ICCV 2021, section
3.1, equations 1 to 4; the training script that the authors released.

The critic of K logits is a classifier of the target's classes, and reads realness off the same logits as their
log-sum-exp: D(x) = Z / (Z + 1) with Z = sum_k exp(l_k). It learns

    L_D = - mean sum_k softmax(T(x))_k log softmax(l(x))_k
          + 1/2 [ mean softplus(LSE l(x_u)) - mean LSE l(x_u) + mean softplus(LSE l(G(z))) ]

on labelled x, unlabelled x_u and generated pictures, each a batch of its own; the generator matches the mean
features of real pictures and is asked to be told apart by the critic (entropy).

Fidelity notes (paper / authors' code / here)
- The authors' code never puts the target into eval mode, so that dropout and moving batch statistics leak into
  the soft labels. Here the target is in eval mode.
- The authors' code asks the target for the labels of each batch anew. The critic's pictures are public ones
  without augmentation and an eval-mode target always answers alike, so that one query of each public picture
  gives the same function: the labels are asked for once.
- The weight of the entropy is 1e-4 of its sum over a batch of 64; here 64e-4 of its mean, the same at 64 and not
  dependent on the batch.
- The authors' code steps the generator at every fifth step of the critic, here after five of them: the same, but
  for the first.
- Pictures are drawn uniformly with replacement, not by shuffled epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from mi_image.dcgan import DcganGenerator, KedCritic
from micore.kit.generator_training import Source, as_float, copied, descend, moments, restore, train_generator
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = [
    "SMALL",
    "SMOKE",
    "KedSettings",
    "KedTraining",
    "ked_loss",
    "ked_state",
    "lone_logits",
    "matching_loss",
    "restore_ked",
]


@dataclass(frozen=True, kw_only=True)
class KedSettings:
    """Networks and training; the defaults are the authors' code at 64 px.

    iterations: generator steps (120 epochs of 30,000 pictures); entropy_weight: of the mean over the batch.
    """

    latent_dim: int = 100
    width: int = 64
    n_kernels: int = 64
    kernel_dim: int = 50
    iterations: int = 11_250
    batch_size: int = 64
    critic_steps: int = 5
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    entropy_weight: float = 64e-4


SMALL: Mapping[str, Any] = {
    "latent_dim": 64, "width": 16, "n_kernels": 16, "kernel_dim": 16, "iterations": 700, "critic_steps": 1,
}  # fmt: skip
"""Settings for a thousand small grey pictures on one core: a loose prior of digits of 16 px after 35 s."""
SMOKE: Mapping[str, Any] = {
    "latent_dim": 16, "width": 8, "n_kernels": 8, "kernel_dim": 4, "iterations": 80, "batch_size": 16,
    "critic_steps": 1, "learning_rate": 2e-3,
}  # fmt: skip
"""Settings that learn the toy problem of the conformance checks, in about a second."""


def ked_loss(labelled: Tensor, soft_labels: Tensor, real: Tensor, generated: Tensor) -> Tensor:
    """Return the critic's loss of its logits (B, K) for labelled, unlabelled and generated pictures.

    soft_labels: (B, K), the target's probabilities of the labelled ones.
    """
    distillation = -(soft_labels * functional.log_softmax(labelled, dim=1)).sum(dim=1).mean()
    evidence, false_evidence = real.logsumexp(dim=1), generated.logsumexp(dim=1)
    realness = functional.softplus(evidence).mean() - evidence.mean()
    return distillation + (realness + functional.softplus(false_evidence).mean()) / 2


def matching_loss(generated: Tensor, real: Tensor, logits: Tensor, entropy_weight: float) -> Tensor:
    """Return the generator's loss: features (B, F) of generated and real pictures, logits (B, K) of generated ones."""
    logs = functional.log_softmax(logits, dim=1)
    entropy = -(logs.exp() * logs).sum(dim=1).mean()
    return (generated.mean(dim=0) - real.mean(dim=0)).abs().mean() + entropy_weight * entropy


def lone_logits(critic: KedCritic, images: Tensor) -> Tensor:
    """Return the logits (B, K) that the critic gives to each image (B, C, H, W) when it is alone in a batch.

    In a batch of one nobody is near, and the minibatch discrimination gives zeros. So a row of a search does
    not depend on the others.
    """
    features = critic.down(images).flatten(1)
    logits: Tensor = critic.head(functional.pad(features, (0, critic.head.in_features - critic.n_features)))
    return logits.float()


class KedTraining:
    """Train generator and critic step by step.

    images: (N, C, H, W), float in [0, 1] or uint8, on the device of the networks; soft_labels: (N, K), the
    target's probabilities of them. autocast: makes the context for forward passes (mixed precision).
    """

    def __init__(
        self,
        generator: DcganGenerator,
        critic: KedCritic,
        images: Tensor,
        soft_labels: Tensor,
        rng: Source,
        settings: KedSettings = KedSettings(),
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.generator, self.critic = generator.train(), critic.train()
        self.images, self.soft_labels = images, soft_labels
        self.rng, self.settings, self.autocast = rng, settings, autocast
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
        labelled, real = self._draw(), self._draw()
        with torch.no_grad(), self.autocast():
            generated = self._generate()
        with self.autocast():
            logits = [self.critic(images)[1] for images in (self._images(labelled), self._images(real), generated)]
        loss = ked_loss(logits[0].float(), self.soft_labels[labelled], logits[1].float(), logits[2].float())
        descend(self.critic_adam, self.critic, loss)
        return loss.detach()

    def _step_generator(self) -> Tensor:
        real = self._images(self._draw())
        with torch.no_grad(), self.autocast():
            wanted, _ = self.critic(real)
        with self.autocast():
            features, logits = self.critic(self._generate())
        loss = matching_loss(features.float(), wanted.float(), logits.float(), self.settings.entropy_weight)
        descend(self.generator_adam, self.generator, loss)
        return loss.detach()

    def _draw(self) -> Tensor:
        return self.rng.integers(len(self.images), (self.settings.batch_size,))

    def _images(self, rows: Tensor) -> Tensor:
        return as_float(self.images[rows])

    def _generate(self) -> Tensor:
        images: Tensor = self.generator(self.rng.normal((self.settings.batch_size, self.settings.latent_dim)))
        return images

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes, as nested dicts of tensors and ints."""
        return {
            "generator": copied(self.generator.state_dict()),
            "critic": copied(self.critic.state_dict()),
            "generator_adam": moments(self.generator_adam),
            "critic_adam": moments(self.critic_adam),
            "random": self.rng.state(),
            "iteration": self.iteration,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        restore(self.generator_adam, state["generator_adam"])
        restore(self.critic_adam, state["critic_adam"])
        self.rng.load(state["random"])
        self.iteration = int(state["iteration"])


def ked_state(images: Tensor, soft_labels: Tensor, settings: KedSettings, runtime: Runtime) -> Mapping[str, Any]:
    """Train the GAN, or take it from the shelf if another attack left it there; plain data for `restore_ked`.

    images: (N, C, H, W), float or uint8; soft_labels: (N, K); both on the runtime's device. All that the GAN knows of
    the target is in the labels, so that attacks on one target with equal settings share it; each pays for the
    labels. Resumes bit for bit from ``runtime.checkpoints`` (without a shelf; with one it has a checkpoint of its own).
    """
    arguments = {
        "n_classes": soft_labels.shape[1], "size": images.shape[2], "channels": images.shape[1],
        "latent_dim": settings.latent_dim, "width": settings.width,
        "n_kernels": settings.n_kernels, "kernel_dim": settings.kernel_dim,
    }  # fmt: skip

    def work(stage: Runtime) -> Mapping[str, Any]:
        generator, critic = _networks(arguments, stage)
        stage.maybe_compile(generator)
        stage.maybe_compile(critic)
        training = KedTraining(
            generator, critic, images, soft_labels, stage.rng("ked", "gan"), settings, stage.autocast
        )
        train_generator(
            training, settings.iterations, stage, "training the inversion-specific GAN", stage.checkpoints.load()
        )
        weights = {"generator": copied(generator.state_dict()), "critic": copied(critic.state_dict())}
        return {**weights, "arguments": arguments}

    digests = {"images": tensor_digest(images), "labels": tensor_digest(soft_labels)}
    return shared("ked", {"settings": asdict(settings), **digests}, work, runtime)


def restore_ked(state: Mapping[str, Any], runtime: Runtime) -> tuple[DcganGenerator, KedCritic]:
    """Return generator and critic of a `ked_state` on the device, in eval mode and without gradients."""
    generator, critic = _networks(state["arguments"], runtime)
    for network, name in ((generator, "generator"), (critic, "critic")):
        network.load_state_dict(state[name])
        runtime.maybe_compile(network.eval().requires_grad_(False))
    return generator, critic


def _networks(arguments: Mapping[str, int], runtime: Runtime) -> tuple[DcganGenerator, KedCritic]:
    sizes = arguments["size"], arguments["channels"], arguments["width"]
    with runtime.seeded("ked", "parameters"):
        generator = DcganGenerator(arguments["latent_dim"], *sizes)
        critic = KedCritic(arguments["n_classes"], *sizes, arguments["n_kernels"], arguments["kernel_dim"])
    return runtime.place(generator), runtime.place(critic)
