"""The negative control: what a prior gives without the target.

A GAN is trained on the public images alone, with no labels and no guidance, and each case gets samples of
it. Whatever a judge finds in these was not taken from the target. An attack that has a prior of its own is
controlled with samples of that prior instead, in its own run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from mi_image.conditional_gan import ConditionalGenerator, ProjectionDiscriminator, require_makeable
from mi_image.gan_training import ConditionalGanTraining, GanSettings, train_generator
from mi_image.priors import ConditionalPrior
from micore.contracts import Case, Config, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.runs.subjects import draw_case
from micore.runtime import Runtime
from micore.target import Target


class PriorSamplesConfig(Config):
    """Settings of the control: the network and training of the PLG-MI prior, without labels."""

    latent_dim: int = Field(128, ge=1, description="dimensions of the latent space")
    base: int = Field(64, ge=1, description="channels of the generator's finest block")
    iterations: int = Field(30_000, ge=1, description="generator steps")
    batch_size: int = Field(64, ge=2, description="images of one GAN step")
    critic_steps: int = Field(5, ge=1, description="critic steps per generator step")
    restarts: int = Field(5, ge=1, description="samples per case")


class PriorSamples:
    """Give each case samples of a prior that never saw the target."""

    Config: ClassVar[type[Config]] = PriorSamplesConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {"latent_dim": 64, "base": 16, "iterations": 700, "critic_steps": 1, "restarts": 10},
        "smoke": {"latent_dim": 16, "base": 4, "iterations": 20, "batch_size": 16, "critic_steps": 1, "restarts": 3},
        "paper": {},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"latent_dim", "base", "iterations", "batch_size", "critic_steps"}
    )

    def __init__(self, config: PriorSamplesConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the GAN on the public images.

        Raises: DataError without public images.
        """
        if public is None or len(public) == 0:
            raise DataError("prior-samples needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        config, (_, channels, size, _) = self.config, images.shape
        require_makeable(images, config.base)
        generator = self._generator(channels, size, runtime)
        with runtime.seeded("prior-samples", "critic"):
            critic = runtime.place_channels_last(ProjectionDiscriminator(1, size, channels, config.base))
        members = torch.arange(len(images), device=runtime.device)[None]
        settings = GanSettings(batch_size=config.batch_size, critic_steps=config.critic_steps, guidance_weight=0.0)
        training = ConditionalGanTraining(
            generator, critic, images, members, runtime.rng("prior-samples", "gan"), settings, autocast=runtime.autocast
        )
        train_generator(training, config.iterations, runtime, "training the prior", runtime.checkpoints.load())
        return Prepared(state={"generator": training.result.state_dict(), "shape": [channels, size]})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Draw the samples of each case."""
        if prepared is None:
            raise DataError("prior-samples was not prepared")
        prior = self.prior(prepared, runtime)
        for case in cases:
            yield draw_case(prior, case, self.config.restarts, runtime)

    def prior(self, prepared: Prepared, runtime: Runtime) -> ConditionalPrior:
        """Return the trained GAN as a prior."""
        channels, size = prepared.state["shape"]
        generator = self._generator(channels, size, runtime)
        generator.load_state_dict(prepared.state["generator"])
        return ConditionalPrior(generator.eval().requires_grad_(False))

    def _generator(self, channels: int, size: int, runtime: Runtime) -> ConditionalGenerator:
        with runtime.seeded("prior-samples", "generator"):
            return runtime.place_channels_last(
                ConditionalGenerator(1, self.config.latent_dim, size, channels, self.config.base)
            )
