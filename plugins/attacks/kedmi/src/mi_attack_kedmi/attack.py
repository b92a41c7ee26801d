"""KED-MI: knowledge-enriched distributional model inversion.

Chen, Kahla, Jia, Qi: "Knowledge-Enriched Distributional Model Inversion Attacks", ICCV 2021 (arXiv:2010.04092).

Threat model: white box (logits and gradients of the target), unlabelled public images of the same kind.

1. The target labels the public images softly; the critic of a GAN learns these labels besides realness, so that the
   generator keeps what matters to the target.
2. For each class a diagonal Gaussian over the latents is moved until pictures drawn from it look real to the critic
   and like the class to the target.
3. The reconstructions are draws from the Gaussian.

Fidelity notes (paper / authors' code / here)
- Draws: the authors' code clamps latents only where it prints progress, not in the search nor in the five draws that
  are evaluated; LOMMA's version of it clamps them in the search. ``clip=none`` (default) is the paper, ``clip=samples``
  clamps them to [-1, 1] in the search and in the reconstructions.
- Distributions: one for each class and five draws, as in the paper; ``restarts`` offers more. Nothing rewards a wide
  Gaussian, so draws of one may look alike.
- The critic holds minibatch discrimination: its score of a picture depends on the batch, which in the authors' code is
  the other classes under attack. Here a picture is scored as if alone in its batch (nobody is near: zeros), so that a
  case's result depends on no other case.
- The authors' code takes the mean of the loss over a batch of 60 classes; Adam hides the factor up to its epsilon. Here
  losses are summed.
- Steps: 2400 in the authors' code; 1500 in the re-run of PLG-MI's authors.
- Reconstructions come best first by the target's confidence; all of them count in the evaluation, as in the paper.
- The presets ``default`` and ``smoke`` are ours: a narrow GAN with a short training, for small pictures on a CPU.
- Training of the GAN: see `mi_image.ked_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_image.answers import soft_labels
from mi_image.dcgan import DcganGenerator
from mi_image.gan_search import GaussianSearch, evidence_loss
from mi_image.ked_training import SMALL, SMOKE, KedSettings, ked_state, restore_ked
from mi_image.priors import GanPrior
from mi_image.wgan_training import require_makeable
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.latent_objective import LatentObjective, identity_of
from micore.kit.losses import cross_entropy
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class KedGanConfig(Config):
    """Settings of the inversion-specific GAN; the defaults are the authors' code at 64 px."""

    latent_dim: int = Field(100, ge=1, description="dimensions of the latent space (paper: 100)")
    width: int = Field(64, ge=1, description="channels of the networks' finest stage (code: 64)")
    kernels: int = Field(64, ge=1, description="values of the minibatch discrimination (code: 64)")
    kernel_dim: int = Field(50, ge=1, description="dimensions in which it takes distances (code: 50)")
    iterations: int = Field(11_250, ge=1, description="generator steps (code: 120 epochs of 30,000 images)")
    gan_batch_size: int = Field(64, ge=2, description="images of one GAN step (code: 64)")
    critic_steps: int = Field(5, ge=1, description="critic steps per generator step (code: 5)")
    gan_learning_rate: float = Field(2e-4, gt=0, description="of both Adams (code: 2e-4)")
    entropy_weight: float = Field(64e-4, ge=0, description="of the generator's entropy (code: 1e-4 of the sum over 64)")


RENAMED = {"n_kernels": "kernels", "batch_size": "gan_batch_size", "learning_rate": "gan_learning_rate"}
"""Fields of `KedSettings` that have another name in the config."""


class KnowledgeEnrichedConfig(KedGanConfig):
    """Settings of KED-MI; the defaults of single fields are the authors', presets change them."""

    steps: int = Field(2400, ge=0, description="Adam steps of the search (code: 2400)")
    learning_rate: float = Field(0.02, gt=0, description="of the search's Adam (code: 0.02)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the target's cross-entropy (paper: 100)")
    restarts: int = Field(1, ge=1, description="Gaussians per class (paper: 1)")
    draws: int = Field(5, ge=1, description="reconstructions from each Gaussian (paper: 5)")
    patience: int | None = Field(
        None, ge=1, description="steps without a lower loss after which a Gaussian retires (code: none)"
    )
    clip: Literal["none", "samples"] = Field(
        "none", description="none: as published; samples: drawn latents are clamped to [-1, 1]"
    )


def gan_preset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the GAN under the names of the config's fields."""
    return {RENAMED.get(name, name): value for name, value in settings.items()}


class KnowledgeEnriched:
    """The attack KED-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = KnowledgeEnrichedConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**gan_preset(SMALL), "steps": 1500, "restarts": 5, "draws": 2},
        "smoke": {**gan_preset(SMOKE), "steps": 80, "learning_rate": 0.1, "draws": 3},
        "paper": {},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(KedGanConfig.model_fields)

    def __init__(self, config: KnowledgeEnrichedConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Label the public images with the target and train the GAN on both (section 3.1).

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("kedmi needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        require_makeable(images)  # before the target is asked anything
        stages = Stages(runtime)
        answers = stages.run("answers", lambda stage: {"labels": soft_labels(target, images, stage)})
        labels = answers["labels"].to(runtime.device)
        return Prepared(state=stages.run("gan", lambda stage: ked_state(images, labels, self._settings(), stage)))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Move a Gaussian for each case, and draw from it (section 3.2)."""
        config = self.config
        generator, critic = restore_ked(_state(prepared), runtime)
        objective = LatentObjective(
            generator=generator, realism=evidence_loss(critic), identity=identity_of(target.module, cross_entropy),
            identity_weight=config.identity_weight,
        )  # fmt: skip
        search = GaussianSearch(
            latent_dim=config.latent_dim, steps=config.steps, learning_rate=config.learning_rate,
            restarts=config.restarts, draws=config.draws, box=1.0 if config.clip == "samples" else None,
            patience=config.patience,
        )  # fmt: skip
        yield from search.run(objective, target, cases, runtime)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the public images, each step of each Gaussian, a last look at the draws.

        With ``patience`` a search may end before.
        """
        config = self.config
        steps = config.restarts * config.steps
        return Forecast(
            preparation=Spending(queries=n_public),
            per_case=Spending(queries=steps + config.restarts * config.draws, gradients=steps),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> GanPrior:
        """Return the GAN as a prior. The target taught its critic, so this floor is not wholly free of it."""
        return GanPrior(self.generator(prepared, runtime))

    def generator(self, prepared: Prepared, runtime: Runtime) -> DcganGenerator:
        """Build the generator: latents (B, latent_dim) to images; labels are ignored."""
        return restore_ked(_state(prepared), runtime)[0]

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of the generator."""
        return Prepared(state={**prepared.state, "generator": dict(weights)})

    def _settings(self) -> KedSettings:
        names = {name: RENAMED.get(name, name) for name in KedSettings.__dataclass_fields__ if name != "betas"}
        return KedSettings(**{name: getattr(self.config, field) for name, field in names.items()})


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("kedmi was not prepared")
    return prepared.state
