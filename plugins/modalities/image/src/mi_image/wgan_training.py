"""Wasserstein training (gradient penalty) of the DCGAN prior on public images, resumable bit for bit.

The training itself is `micore.kit.wgan`; settings of Zhang et al., "The Secret Revealer: Generative Model-Inversion
Attacks Against Deep Neural Networks" (CVPR 2020), authors' code. No target is asked, so attacks share one GAN of the
same public images (`gan_state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from mi_image.dcgan import DcganGenerator, WganCritic
from micore.errors import MiError
from micore.kit.generator_training import copied, train_generator
from micore.kit.stages import shared, tensor_digest
from micore.kit.wgan import WganSettings, WganTraining
from micore.runtime import Runtime

__all__ = [
    "SMALL", "SMOKE", "gan_state", "require_makeable", "restore_gan",
]  # fmt: skip

SIZES = (8, 16, 32, 64, 128, 256)


SMALL = {
    "latent_dim": 100, "width": 16, "iterations": 800, "batch_size": 32, "critic_steps": 1, "learning_rate": 2e-3,
}  # fmt: skip
"""Settings for a thousand small grey pictures on one core: recognisable digits of 16 px after 15 s."""
SMOKE = {
    "latent_dim": 16, "width": 8, "iterations": 60, "batch_size": 16, "critic_steps": 1, "learning_rate": 2e-3,
}  # fmt: skip
"""Settings that learn the toy problem of the conformance checks, in about a second."""


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
        train_generator(training, settings.iterations, stage, "training the public GAN", stage.checkpoints.load())
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
