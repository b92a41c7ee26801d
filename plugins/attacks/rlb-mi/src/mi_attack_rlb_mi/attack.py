"""RLB-MI: reinforcement learning-based black-box model inversion.

Han, Choi, Lee, Kim: "Reinforcement Learning-Based Black-Box Model Inversion Attacks", CVPR 2023 (arXiv:2304.04625).

Threat model: black box (scores of all classes); unlabelled public images of the same kind.

1. A GAN is trained on the public images, without the target.
2. For each class an agent (soft actor-critic) learns to go from any latent to one whose image looks like the class: its
   action is the next latent, its reward the target's log-score of the class and the margin over the other classes.
3. The reconstruction is the image, of all that the agent tried, that the target was surest of.

Fidelity notes (paper / authors' code / here)
- Agents: one per class, sizes, rates and rewards as in the authors' code. Theirs learn one after the other; here all
  learn in one update, with stacked parameters, each for itself.
- Environments: the authors' agent plays one episode at a time. Here it plays ``environments`` at once, so that the
  target sees full batches, then takes ``updates`` steps of gradient; in the preset ``paper`` one for each episode, as
  published.
- Noise: the authors' code draws one number for all dimensions of an action, and averages log-probabilities over
  dimensions; ``noise=scalar`` does so. Here each dimension has its own, and log-probabilities are sums.
- Queries: the authors' code asks about the next state and the action; at ``mix=0``, as published, they are one image,
  which is asked about once here. So an episode costs two queries (with its test), not three.
- Tests: after each episode the authors roll one step from a fresh latent and keep the image with the largest score.
  Here ``tests`` of them after each round; the policy's mean is tested, without noise; images of training count, too.
- An episode's last step has no value beyond its reward (ours; the source is silent); so with episodes of one step, as
  published, critics need no slow copies.
- Scores below 1e-7 count as 1e-7 in all terms of the reward; the authors' code bounds only the margin.
- Memory: the authors' buffer holds a million steps; here as many, but no more than there are.
- ``restarts`` agents for each class; the paper has one. Presets ``default`` and ``smoke`` are ours: small agents,
  higher rates, fewer episodes.
- Networks and training of the GAN: `mi_image.dcgan`, `mi_image.wgan_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn

from mi_attack_rlb_mi.agents import Noise, SacSettings
from mi_attack_rlb_mi.environments import Environments, Rewarding
from mi_attack_rlb_mi.learning import Learning
from mi_image.priors import GanPrior
from mi_image.wgan_config import GAN_FIELDS, SMALL_GAN, SMOKE_GAN, WganConfig
from mi_image.wgan_training import gan_state, restore_gan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import reconstructions, tiled
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

STANDS = 6
"""Points of the curve of recovery over queries, besides the end."""


class ReinforcedConfig(WganConfig):
    """Settings of RLB-MI; the defaults of single fields are the authors' code, presets change them."""

    restarts: int = Field(1, ge=1, description="agents, and so reconstructions, per class (paper: 1)")
    episodes: int = Field(40_000, ge=1, description="episodes of each agent (paper: 40,000)")
    episode_length: int = Field(1, ge=1, description="steps of an episode (paper: 1)")
    environments: int = Field(32, ge=1, description="episodes that an agent plays at once (paper: 1); must divide them")
    updates: int = Field(32, ge=0, description="gradient steps after each step of all environments")
    tests: int = Field(32, ge=0, description="test images after each episode of all environments")
    mix: float = Field(0.0, ge=0, lt=1, description="share of the old state in the next one (paper alpha: 0)")
    state_weight: float = Field(2.0, ge=0, description="of the next state's log-score (code: 2)")
    action_weight: float = Field(2.0, ge=0, description="of the action's log-score (code: 2)")
    margin_weight: float = Field(8.0, ge=0, description="of the logarithm of the margin (code: 8)")
    noise: Noise = Field("dimension", description="of an action: its own for each dimension, or one scalar (code)")
    hidden: int = Field(256, ge=1, description="units of the agents' hidden layers (code: 256)")
    learning_rate: float = Field(5e-4, gt=0, description="of actor, critics and temperature (code: 5e-4)")
    discount: float = Field(0.99, ge=0, le=1, description="of what follows, in longer episodes (code: 0.99)")
    polyak: float = Field(0.01, gt=0, le=1, description="pace of the slow critics, in longer episodes (code: 0.01)")
    batch_size: int = Field(256, ge=1, description="remembered steps of one update (code: 256)")
    memory: int = Field(1_000_000, ge=1, description="steps that an agent remembers (code: a million)")

    @model_validator(mode="after")
    def _even(self) -> ReinforcedConfig:
        if self.episodes % self.environments:
            raise ValueError(f"environments={self.environments} does not divide episodes={self.episodes}")
        if self.memory < self.environments:
            raise ValueError(f"memory={self.memory} is less than environments={self.environments}")
        return self

    @property
    def rounds(self) -> int:
        """Steps of all environments."""
        return self.episodes // self.environments * self.episode_length


class ReinforcedInversion:
    """The attack RLB-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = ReinforcedConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL_GAN, "restarts": 8, "episodes": 2000, "environments": 8, "updates": 2, "tests": 2,
            "hidden": 64, "learning_rate": 2e-3, "batch_size": 64,
        },
        "smoke": {
            **SMOKE_GAN, "restarts": 2, "episodes": 640, "environments": 8, "updates": 2, "tests": 2,
            "hidden": 32, "learning_rate": 5e-3, "batch_size": 32,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = GAN_FIELDS

    def __init__(self, config: ReinforcedConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the GAN of the public images; attacks with the same settings share it.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("rlb-mi needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        return Prepared(state=gan_state(images, self.config.wgan_settings(), runtime))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Let the agents of all cases learn together; yield the best images that they found."""
        config, generator = self.config, restore_gan(_state(prepared), runtime)[0]
        labels = torch.tensor([case.label for case in cases], device=runtime.device)
        owners = [case.id for case in cases for _ in range(config.restarts)]
        environments = Environments(
            generator, target, labels.repeat_interleave(config.restarts), owners, runtime,
            rewarding=self._rewarding(), latent_dim=config.latent_dim, mix=config.mix,
        )  # fmt: skip
        learning = Learning(
            sac=self._sac_settings(), rounds=config.rounds, episode_length=config.episode_length,
            environments=config.environments, updates=config.updates, tests=config.tests,
            batch_size=config.batch_size, memory=config.memory, stands=STANDS,
        )  # fmt: skip
        found = learning.run(environments, cases, config.restarts, runtime)
        images, *course = (
            tiled(generator, runtime.tile, latents)
            for latents in (found.values, *(stand.values for stand in found.course))
        )
        yield from reconstructions(
            cases, found, images, -found.losses, latents=found.values, history="reward", course=course
        )

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: each step of the agents (two images of it unless ``mix`` is 0) and the tests."""
        config = self.config
        steps = config.episodes * config.episode_length * (2 if config.mix else 1)
        tests = config.tests * (config.episodes // config.environments)
        return Forecast(preparation=Spending(), per_case=Spending(queries=config.restarts * (steps + tests)))

    def prior(self, prepared: Prepared, runtime: Runtime) -> GanPrior:
        """Return the GAN as a prior; it has never seen the target."""
        return GanPrior(restore_gan(_state(prepared), runtime)[0])

    def generator(self, prepared: Prepared, runtime: Runtime) -> nn.Module:
        """Build the generator: latents (B, latent_dim) to images; labels are ignored."""
        return restore_gan(_state(prepared), runtime)[0]

    def with_generator(self, prepared: Prepared, weights: Mapping[str, torch.Tensor]) -> Prepared:
        """Return what was prepared with other weights of the generator."""
        return Prepared(state={**prepared.state, "generator": dict(weights)})

    def _rewarding(self) -> Rewarding:
        config = self.config
        return Rewarding(state=config.state_weight, action=config.action_weight, margin=config.margin_weight)

    def _sac_settings(self) -> SacSettings:
        config = self.config
        return SacSettings(
            latent_dim=config.latent_dim, hidden=config.hidden, learning_rate=config.learning_rate,
            discount=config.discount, polyak=config.polyak, noise=config.noise, bootstrap=config.episode_length > 1,
        )  # fmt: skip


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("rlb-mi was not prepared")
    return prepared.state
