"""LOMMA: logit maximisation and model augmentation, on top of GMI or KED-MI.

Nguyen, Chandrasegaran, Abdollahzadeh, Cheung: "Re-thinking Model Inversion Attacks Against Deep Neural Networks",
CVPR 2023 (arXiv:2304.01669).

Threat model: white box (logits, features and gradients of the target), unlabelled public images of the same kind.

1. A GAN is trained as in the base attack: GMI's on public images alone, or KED-MI's with the target's soft labels.
2. Students are distilled from the target on the public images.
3. The base attack's search is run with another identity loss: the negative raw logit, averaged over the target and its
   students, and a prior that keeps the target's features near their mean over the public images.

Variants (``variant``): ``baseline``: cross-entropy of the target; ``augmented``: cross-entropy of target and students;
``logit``: raw logit of the target, with the feature prior; ``full``: raw logits of all, with the feature prior. All
share one GAN, which the attacks `gmi` and `kedmi` share too where their settings are the same.

Fidelity notes (paper / authors' code / here)
- Feature prior: the authors' code draws features around the mean and then overwrites the draw by the mean; what runs
  is the constant mean, as here. It is added once, for the target, which the authors' code ensures by asking whether the
  sum is still zero; here it stands apart.
- The paper writes a squared norm of the difference of features, the authors' code takes the mean of the squares:
  ``feature_distance`` (default: mean).
- The mean is that of all public images; the authors take about 5,000.
- Students: the authors take EfficientNet-B0, B1 and B2 with weights of ImageNet; `mi_image.students` says what
  stands in for them.
- KED-MI as base: the authors' code clamps drawn latents to [-1, 1] in the search (not in what is evaluated). Here
  ``clip=samples`` (default) clamps in both; ``none`` in neither. One Gaussian and five draws.
- GMI as base: the authors' loss is a mean over 60 classes; losses are summed here, and ``class_batch`` divides the
  learning rate.
- The target is in eval mode throughout; the authors leave it in training mode while the GAN of KED-MI is trained.
- Reconstructions come best first by the target's confidence; all of them count in the evaluation, as in the paper.
- The presets ``default`` and ``smoke`` are ours: narrow networks and short trainings for small pictures on a CPU. The
  paper's attack is ``full``; ``default`` is ``logit``, because students that have seen other classes only, as those of
  the digits 5 to 9, know too little of the private ones and outvote the target.
- For the networks' own notes see `mi_image.dcgan`, `mi_image.wgan_training`, `mi_image.ked_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_attack_lomma.config import PREPARE_FIELDS, PRESETS, LommaConfig
from mi_attack_lomma.identity import AugmentedIdentity, FeaturePrior
from mi_image.answers import labels_and_mean_features
from mi_image.dcgan import DcganGenerator
from mi_image.gan_search import GaussianSearch, PointSearch, evidence_loss
from mi_image.ked_training import ked_state, restore_ked
from mi_image.priors import GanPrior
from mi_image.students import require_teachable, restore_students, student_states
from mi_image.wgan_training import gan_state, require_makeable, restore_gan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.latent_objective import LatentObjective, Realism, negative_score
from micore.kit.losses import cross_entropy, negative_logit
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class LogitModelAugmented:
    """The attack LOMMA (see the module's documentation)."""

    Config: ClassVar[type[Config]] = LommaConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: LommaConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Ask the target about the public images, train the base's GAN and distil the students.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make; ModelError for
        a target without a linear layer, which has no features.
        """
        if public is None or len(public) == 0:
            raise DataError("lomma needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        stages, config = Stages(runtime), self.config
        require_makeable(images)  # before the target is asked anything
        if config.asks_students:
            require_teachable(images)

        def ask(stage: Runtime) -> Mapping[str, Any]:
            return dict(zip(("labels", "mean"), labels_and_mean_features(target, images, stage), strict=True))

        answers = stages.run("answers", ask)
        labels = answers["labels"].to(runtime.device)
        if config.base == "gmi":
            gan = stages.run("gan", lambda stage: gan_state(images, config.wgan_settings(), stage))
        else:
            gan = stages.run("gan", lambda stage: ked_state(images, labels, config.ked_settings(), stage))
        state = {"gan": gan, "mean_features": answers["mean"]}
        if config.asks_students:
            settings = config.student_settings()
            work = stages.run("students", lambda stage: student_states(images, labels, settings, stage))
            state["students"] = work
        return Prepared(state=state)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Run the base's search with LOMMA's identity loss (sections 4.1 and 4.2)."""
        state = _state(prepared)
        generator, realism = self._gan(state, runtime)
        objective = LatentObjective(
            generator=generator, realism=realism, identity=self._identity(target, state, runtime),
            identity_weight=self.config.identity_weight,
        )  # fmt: skip
        yield from self._search(generator.latent_dim).run(objective, target, cases, runtime)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the public images, each step of each row of the search, a last look.

        With ``patience`` a search may end before.
        """
        config = self.config
        rows, found = (
            (config.restarts,) * 2 if config.base == "gmi" else (config.gaussians, config.gaussians * config.draws)
        )
        return Forecast(
            preparation=Spending(queries=n_public),
            per_case=Spending(queries=rows * config.steps + found, gradients=rows * config.steps),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> GanPrior:
        """Return the base's GAN as a prior. KED-MI's has a critic that the target taught, GMI's knows no target."""
        return GanPrior(self.generator(prepared, runtime))

    def generator(self, prepared: Prepared, runtime: Runtime) -> DcganGenerator:
        """Build the generator: latents (B, latent_dim) to images; labels are ignored."""
        return self._gan(_state(prepared), runtime)[0]

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of the generator."""
        gan = {**prepared.state["gan"], "generator": dict(weights)}
        return Prepared(state={**prepared.state, "gan": gan})

    def _gan(self, state: Mapping[str, Any], runtime: Runtime) -> tuple[DcganGenerator, Realism]:
        if self.config.base == "gmi":
            generator, score = restore_gan(state["gan"], runtime)
            return generator, negative_score(score)
        ked_generator, critic = restore_ked(state["gan"], runtime)
        return ked_generator, evidence_loss(critic)

    def _identity(self, target: Target, state: Mapping[str, Any], runtime: Runtime) -> AugmentedIdentity:
        config = self.config
        prior = FeaturePrior(
            mean=state["mean_features"].to(runtime.device), weight=config.feature_weight,
            distance=config.feature_distance,
        )  # fmt: skip
        return AugmentedIdentity(
            target=target.module,
            loss=negative_logit if config.maximises_logits else cross_entropy,
            students=restore_students(state["students"], runtime) if config.asks_students else (),
            prior=prior if config.maximises_logits else None,
        )

    def _search(self, latent_dim: int) -> PointSearch | GaussianSearch:
        config = self.config
        if config.base == "gmi":
            return PointSearch(
                latent_dim=latent_dim, restarts=config.restarts, steps=config.steps,
                learning_rate=config.learning_rate / config.class_batch, momentum=config.momentum, box=1.0,
            )  # fmt: skip
        return GaussianSearch(
            latent_dim=latent_dim, steps=config.steps, learning_rate=config.learning_rate,
            restarts=config.gaussians, draws=config.draws, box=1.0 if config.clip == "samples" else None,
            patience=config.patience,
        )  # fmt: skip


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("lomma was not prepared")
    return prepared.state
