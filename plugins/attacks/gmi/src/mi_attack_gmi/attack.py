"""GMI: generative model inversion.

Zhang, Jia, Pei, Wang, Li, Song: "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
Networks", CVPR 2020 (arXiv:1911.07135).

Threat model: white box (logits and gradients of the target), unlabelled public images of the same kind.

1. A Wasserstein GAN is trained on the public images, without the target.
2. For each class, latents are searched that minimise -D(G(z)) + 100 CE(T(G(z)), class): pictures that the critic
   takes for real and the target for the class.

Fidelity notes (paper / authors' code / here)
- The authors' code takes the mean of the loss over a batch of 60 classes, which divides every class's step by 60:
  the step depends on how many classes are attacked. Here losses are summed and ``class_batch`` divides the learning
  rate, so that ``paper`` moves as published whatever else is attacked.
- The update is the authors': momentum that looks ahead with the gradient at the point itself, then the box [-1, 1]
  after each step. So a prior that was trained on N(0, I) is searched in its middle, as published.
- The authors keep the restart with the largest logit of the class, which their code looks up by the row in the
  batch rather than the class; KED-MI and later papers report all five. Here all are given, best first by the target's
  confidence in the class.
- Steps: 1500 in the authors' code, 2400 in the re-runs of later papers.
- The presets ``default`` and ``smoke`` are ours: a narrow GAN with a short training for small pictures on a CPU, and
  larger steps of the search.
- Networks and training: `mi_image.dcgan`, `mi_image.wgan_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_image.gan_search import PointSearch
from mi_image.priors import GanPrior
from mi_image.wgan_config import GAN_FIELDS, SMALL_GAN, SMOKE_GAN, WganConfig
from mi_image.wgan_training import gan_state, restore_gan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.latent_objective import LatentObjective, identity_of, negative_score
from micore.kit.losses import cross_entropy
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class GenerativeInversionConfig(WganConfig):
    """Settings of GMI; the defaults of single fields are the authors', presets change them."""

    steps: int = Field(1500, ge=0, description="steps of the search (code: 1500)")
    learning_rate: float = Field(0.02, gt=0, description="of the search (code: 0.02)")
    class_batch: int = Field(
        60, ge=1, description="rows over which the authors' loss is a mean: divides the learning rate (code: 60)"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of the search (code: 0.9)")
    box: float = Field(1.0, gt=0, description="largest absolute value of a latent, after each step (code: 1)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the target's cross-entropy (paper lambda: 100)")
    restarts: int = Field(5, ge=1, description="reconstructions per class (code: 5)")


class GenerativeInversion:
    """The attack GMI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = GenerativeInversionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL_GAN, "steps": 300, "class_batch": 1, "restarts": 10},
        "smoke": {**SMOKE_GAN, "steps": 40, "class_batch": 1, "restarts": 3},
        "paper": {},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = GAN_FIELDS

    def __init__(self, config: GenerativeInversionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the GAN of the public images; attacks with the same settings share it.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("gmi needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        return Prepared(state=gan_state(images, self.config.wgan_settings(), runtime))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the latents of all restarts of all cases."""
        config = self.config
        generator, critic = restore_gan(_state(prepared), runtime)
        objective = LatentObjective(
            generator=generator, realism=negative_score(critic), identity=identity_of(target.module, cross_entropy),
            identity_weight=config.identity_weight,
        )  # fmt: skip
        search = PointSearch(
            latent_dim=generator.latent_dim, restarts=config.restarts, steps=config.steps,
            learning_rate=config.learning_rate / config.class_batch, momentum=config.momentum, box=config.box,
        )  # fmt: skip
        yield from search.run(objective, target, cases, runtime)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: each step of the search and a last look; the GAN does not need it."""
        steps = self.config.restarts * self.config.steps
        per_case = Spending(queries=steps + self.config.restarts, gradients=steps)
        return Forecast(preparation=Spending(), per_case=per_case)

    def prior(self, prepared: Prepared, runtime: Runtime) -> GanPrior:
        """Return the GAN as a prior; it has never seen the target."""
        return GanPrior(restore_gan(_state(prepared), runtime)[0])

    def generator(self, prepared: Prepared, runtime: Runtime) -> nn.Module:
        """Build the generator: latents (B, latent_dim) to images; labels are ignored."""
        return restore_gan(_state(prepared), runtime)[0]

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of the generator."""
        return Prepared(state={**prepared.state, "generator": dict(weights)})


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("gmi was not prepared")
    return prepared.state
