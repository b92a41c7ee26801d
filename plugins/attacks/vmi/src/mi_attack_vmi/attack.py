"""VMI: variational model inversion.

Wang, Fu, Li, Khisti, Zemel, Makhzani: "Variational Model Inversion Attacks", NeurIPS 2021 (arXiv:2201.10787).

Threat model: white box (logits and gradients of the target), unlabelled public images of the same kind.

1. A GAN is trained on the public images, without the target (or a StyleGAN of the user's is loaded).
2. For each class a distribution q over the latents is learned: what is drawn from it should look like the class to the
   target, and q should stay near the GAN's prior N(0, I), which keeps its draws varied and real.
3. The reconstructions are draws from q.

Fidelity notes (paper / authors' code / here)
- Prior: a StyleGAN2-ADA of 64 px with one flow per layer in the paper's main results, a DCGAN in others. Here
  ``prior=FILE`` is the first, all layers sharing the noise as in the authors' code; without it, the DCGAN of GMI.
- Flow (authors' code): three levels of ten steps (scale and shift, fixed permutation, additive coupling of 100 hidden
  units), half of the dimensions split off after each level and drawn from a Gaussian that depends on the rest. `paper`
  has this, written with zuko's transformations. Scale and shift start at the identity; the authors' start is fitted to
  100 draws of N(0, I). Their logarithms of scales stay below 6.9 here (zuko), for affine couplings, too.
- Gaussian: of full covariance, as in the authors' code.
- KL: the authors draw a second batch for it and compute in float64. Here it is estimated from the draws of the attack,
  in float32 (also in mixed precision), and the mean over layers is taken as in their code.
- Optimiser: SGD (authors' code); each class has its own, on the mean over its own draws, so that classes that are
  learned in one pass do not change each other. ``optimizer=adam`` in the presets for small images.
- Steps: the authors' samples come from 20 epochs of 157 batches.
- The authors' cross-entropy could be smoothed and an entropy term added; both have weight 0 in their runs and are left
  out. Images are in [0, 1] without a clamp, as generators end in a bounded function or clip.
- Reconstructions: the first 50 of the authors' draws, unselected. Here ``draws`` of them, all of which count in the
  evaluation, best first by the target's confidence.
- The presets ``default`` and ``smoke`` are ours: a narrow GAN with a short training for small pictures on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mi_attack_vmi.families import FullGaussian, Members, MultiScaleFlow, level_sizes
from mi_attack_vmi.learning import HeavyBall, Learned, Learner
from mi_attack_vmi.spaces import LatentSpace, restore_space, with_weights
from mi_image.prior_choice import PriorFileConfig, stylegan_state
from mi_image.stylegan2_training import StyleGanSettings
from mi_image.wgan_config import SMALL_GAN, SMOKE_GAN, WganConfig
from mi_image.wgan_training import gan_state
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import CaseFailed, ConfigError, DataError
from micore.kit.case_rows import confidences, reconstructions, standard_normal, tiled
from micore.kit.row_optimizers import RowAdam, RowOptimizer
from micore.kit.search import Found
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class PriorConfig(PriorFileConfig, WganConfig):
    """Settings of the prior: a StyleGAN's file, or a GAN of public images (defaults: GMI's authors' code at 64 px)."""

    prior: str | None = Field(
        None,
        description="file of a StyleGAN2 prior (`mi prior`), for one flow per layer; none: a DCGAN of public images",
    )


class VariationalConfig(PriorConfig):
    """Settings of VMI; the defaults of single fields are the authors' code, presets change them."""

    family: Literal["flow", "gaussian"] = Field(
        "flow", description="what q is: a flow, or a Gaussian (of full covariance)"
    )
    levels: int = Field(3, ge=1, description="levels of the flow, each on half of the dimensions of the last (code: 3)")
    flow_steps: int = Field(10, ge=1, description="steps of each level (code: 10)")
    hidden: int = Field(100, ge=1, description="hidden units of the flow's networks (code: 100)")
    coupling: Literal["additive", "affine"] = Field("additive", description="what couplings do (code: additive)")
    steps: int = Field(3140, ge=0, description="gradient steps for each class (code: 20 epochs of 157)")
    samples: int = Field(64, ge=1, description="draws in each step (code: 64)")
    kl_weight: float = Field(1e-3, ge=0, description="weight of KL(q || N(0, I)) (code: 1e-3)")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="sgd with momentum 0.9 (code), or adam")
    learning_rate: float = Field(1e-4, gt=0, description="of the optimizer (code: 1e-4)")
    draws: int = Field(50, ge=1, description="reconstructions for each class (code: 50)")

    @model_validator(mode="after")
    def _splittable(self) -> VariationalConfig:
        if self.prior is None:
            self.require_levels(self.latent_dim)
        return self

    def require_levels(self, latent_dim: int) -> None:
        """Raise ConfigError unless every level of the flow has two dimensions to couple."""
        if self.family == "flow" and level_sizes(latent_dim, self.levels)[0] < 2:
            raise ConfigError(f"levels={self.levels}: too many for {latent_dim} latent dimensions", hint="-p levels=1")


class Variational:
    """The attack VMI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = VariationalConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL_GAN, "levels": 1, "flow_steps": 4, "hidden": 64, "coupling": "affine", "samples": 16,
            "steps": 300, "optimizer": "adam", "learning_rate": 3e-3, "draws": 10,
        },
        "smoke": {
            **SMOKE_GAN, "levels": 1, "flow_steps": 2, "hidden": 16, "samples": 8, "steps": 50,
            "optimizer": "adam", "learning_rate": 1e-2, "draws": 3,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(PriorConfig.model_fields) - {"prior"}

    def __init__(self, config: VariationalConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the GAN of the public images, which attacks with the same settings share, or load the StyleGAN.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make; ModelError for
        a file that is no StyleGAN prior, is conditional, or does not fit the images.
        """
        if public is None or len(public) == 0:
            raise DataError("vmi needs public images")
        images = public.take(torch.arange(len(public)))
        if self.config.prior is not None:
            state = stylegan_state(self.config.prior, images, StyleGanSettings(), runtime, conditional=False)
            self.config.require_levels(int(state["arguments"]["latent_dim"]))
            return Prepared(state={"stylegan": state})
        return Prepared(state={"gan": gan_state(images.to(runtime.device), self.config.wgan_settings(), runtime)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Learn the distributions of the cases, as many in one pass as have room in a tile, and draw from them."""
        learner = self._learner(_space(prepared, runtime), runtime)
        reasons: dict[str, str] = {}
        for group, places in learner.groups(cases, runtime):
            learned = learner.run(target, group, places)
            drawn = learner.draw(learned.found, self._noise(group, learner.space, runtime), places)
            try:
                yield from self._shown(target, group, learned, drawn, learner.space, runtime)
            except CaseFailed as failed:
                reasons |= failed.reasons
        if reasons:
            raise CaseFailed(f"the learning failed for {', '.join(reasons)}", reasons=reasons)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the draws of each step and of the end; the prior does not need it."""
        config = self.config
        learning = config.steps * config.samples
        per_case = Spending(queries=learning + config.draws, gradients=learning)
        return Forecast(preparation=Spending(), per_case=per_case)

    def prior(self, prepared: Prepared, runtime: Runtime) -> LatentSpace:
        """Return the GAN as a prior; it has never seen the target."""
        return _space(prepared, runtime)

    def generator(self, prepared: Prepared, runtime: Runtime) -> nn.Module:
        """Build the generator: latents (B, latent_dim), of a StyleGAN (B, layers, latent_dim), to images."""
        return _space(prepared, runtime).generator

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of the generator."""
        return Prepared(state=with_weights(prepared.state, weights))

    def _learner(self, space: LatentSpace, runtime: Runtime) -> Learner:
        config = self.config
        with runtime.seeded("family", "parameters"):
            family = runtime.place(self._family(space.latent_dim))
        return Learner(
            members=Members(family), space=space, optimizer=self._optimizer(), steps=config.steps,
            samples=config.samples, kl_weight=config.kl_weight,
        )  # fmt: skip

    def _family(self, latent_dim: int) -> nn.Module:
        config = self.config
        if config.family == "gaussian":
            return FullGaussian(latent_dim)
        return MultiScaleFlow(
            latent_dim, levels=config.levels, steps=config.flow_steps, hidden=config.hidden, coupling=config.coupling
        )

    def _optimizer(self) -> RowOptimizer:
        rate = self.config.learning_rate
        return RowAdam(learning_rate=rate) if self.config.optimizer == "adam" else HeavyBall(learning_rate=rate)

    def _noise(self, cases: Sequence[Case], space: LatentSpace, runtime: Runtime) -> Tensor:
        return standard_normal(cases, (self.config.draws, space.latent_dim), runtime, "draws")

    def _shown(
        self, target: Target, cases: Sequence[Case], learned: Learned, drawn: Tensor, space: LatentSpace,
        runtime: Runtime,
    ) -> Iterator[Reconstruction]:  # fmt: skip
        """Render latents (C, draws, layers, d), ask the target about them once and yield them by case, best first."""
        flat, draws = drawn.flatten(0, 1), self.config.draws
        images = tiled(space.render, runtime.tile, flat)
        labels = torch.tensor([case.label for case in cases], device=images.device).repeat_interleave(draws)
        owners = [case.id for case in cases for _ in range(draws)]
        scores, scored = confidences(target, images, labels, owners, runtime)
        histories = {case.id: learned.history(row) for row, case in enumerate(cases)}
        found = _each_draw(learned.found, draws)
        for item in reconstructions(
            cases, found, images, scores, latents=space.latents(flat), scored=scored
        ):  # fmt: skip
            yield replace(item, history=histories[item.case.id])


def _each_draw(found: Found, draws: int) -> Found:
    """Return how each draw's distribution was found."""
    statuses = [status for status in found.statuses for _ in range(draws)]
    return replace(found, statuses=statuses, history=found.history.repeat_interleave(draws, dim=0))


def _space(prepared: Prepared | None, runtime: Runtime) -> LatentSpace:
    if prepared is None:
        raise DataError("vmi was not prepared")
    return restore_space(prepared.state, runtime)
