"""PLG-MI: pseudo-label-guided model inversion.

Yuan, Chen, Zhang, Zhang, Yu, Zhang: "Pseudo Label-Guided Model Inversion Attack via Conditional
Generative Adversarial Network", AAAI 2023 (arXiv:2302.09814).

Threat model: white box (logits and gradients of the target), unlabelled public images of the same kind.

1. The target labels the public images: for each class the ``n_top`` images it is surest of.
2. A conditional GAN is trained on these pairs; besides the critic, the target guides the generator.
3. For each class, latents are searched whose images have the largest margin under random views.

Fidelity notes (paper / authors' code / here)
- Views: paper and authors' code use two random views in the search, the loss is their sum. Same here.
- The authors' code draws the same random numbers for every batch of classes; here each case and restart
  has its own stream, so that a result depends on no other case.
- The authors' code divides the loss by the number of classes in a batch; Adam hides this up to its
  epsilon. Here losses are summed.
- The target is in eval mode throughout, and is not asked when only the critic is trained (the authors ask
  it for logging: 150,000 batches).
- Reconstructions are returned best first by the target's confidence in the unchanged image; all of them
  count in the evaluation, as in the paper.
- The presets ``default`` and ``smoke`` are ours: a network of a quarter of the width and a short training, for
  small pictures on a CPU, with ``n_top`` 100 (paper: 30) and a guidance weight of 0.1 (paper: 0.2).
- Images are in [0, 1]; see `mi_image.conditional_gan` for the network's own notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_image.augment import Augmentation
from mi_image.conditional_gan import ConditionalGenerator, ProjectionDiscriminator, require_makeable
from mi_image.gan_training import ConditionalGanTraining, GanSettings, train_generator
from mi_image.identity import default_flip, view_losses
from mi_image.priors import ConditionalPrior
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import (
    confidences,
    make_rows,
    reconstructions,
    standard_normal,
    tiled,
    uniform_draws,
)
from micore.kit.losses import max_margin
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import RowSearch
from micore.kit.selection import top_k_per_class
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

CONFIDENCE_BATCH = 256


class PseudoLabelGuidedConfig(Config):
    """Settings of PLG-MI; the defaults of single fields are the paper's, presets change them."""

    # pseudo labels and conditional GAN (paper section 3.2)
    n_top: int = Field(30, ge=1, description="public images per pseudo label (paper 4.1: 30)")
    latent_dim: int = Field(128, ge=1, description="dimensions of the latent space (code: 128)")
    base: int = Field(64, ge=1, description="channels of the generator's finest block (code: 64)")
    iterations: int = Field(30_000, ge=1, description="generator steps (code: 30,000)")
    gan_batch_size: int = Field(64, ge=2, description="images of one GAN step (code: 64)")
    critic_steps: int = Field(5, ge=1, description="critic steps per generator step (code: 5)")
    gan_learning_rate: float = Field(2e-4, gt=0, description="of the generator's Adam (code: 2e-4)")
    critic_learning_rate: float = Field(2e-4, gt=0, description="of the critic's Adam (code: 2e-4)")
    guidance_weight: float = Field(0.2, ge=0, description="weight of the target's margin loss (paper alpha: 0.2)")
    # search (paper sections 3.3, 3.4)
    steps: int = Field(600, ge=0, description="Adam steps of the search (code: 600)")
    learning_rate: float = Field(0.1, gt=0, description="of the search's Adam (code: 0.1)")
    views: int = Field(2, ge=1, description="random views per step (paper: 2)")
    restarts: int = Field(5, ge=1, description="reconstructions per class (paper: 5)")
    # views, in GAN training and in the search
    crop_area: float = Field(0.8, gt=0, le=1, description="smallest area of a random crop (code: 0.8)")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image (code: 0.5); none: 0.5 for colour, 0 for grey"
    )
    rotation: float = Field(5.0, ge=0, description="largest rotation in degrees (code: 5)")
    brightness: float = Field(0.2, ge=0, description="largest relative change of brightness (code: 0.2)")
    contrast: float = Field(0.2, ge=0, description="largest relative change of contrast (code: 0.2)")


PRIOR_FIELDS = (
    "n_top", "latent_dim", "base", "iterations", "gan_batch_size", "critic_steps", "gan_learning_rate",
    "critic_learning_rate", "guidance_weight",
    "crop_area", "flip", "rotation", "brightness", "contrast",
)  # fmt: skip


class PseudoLabelGuided:
    """The attack PLG-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = PseudoLabelGuidedConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "n_top": 100, "latent_dim": 64, "base": 16, "iterations": 700, "critic_steps": 1, "guidance_weight": 0.1,
            "steps": 150, "restarts": 10,
        },
        "smoke": {
            "n_top": 16, "latent_dim": 16, "base": 4, "iterations": 30, "gan_batch_size": 16, "critic_steps": 1,
            "steps": 20, "restarts": 3,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(PRIOR_FIELDS)

    def __init__(self, config: PseudoLabelGuidedConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Label the public images with the target and train the conditional GAN under its guidance.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("plmi needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        require_makeable(images, self.config.base)  # before the target is asked anything
        saved = runtime.checkpoints.load()
        members = saved["members"].to(runtime.device) if saved else self._pseudo_labels(target, images, runtime)
        training = self._training(target, images, members, runtime)
        train_generator(training, self.config.iterations, runtime, "training the conditional GAN", saved)
        return Prepared(state={"generator": training.result.state_dict(), "shape": list(images.shape[1:3])})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the latents of all restarts of all cases (sections 3.3 and 3.4)."""
        config, generator = self.config, self._restore(target.n_classes, prepared, runtime)
        module, views = target.module, self._augmentation(generator.channels, colour_probability=1.0)

        def margins(latents: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            images = generator(latents, rows["labels"])
            return view_losses(module, max_margin, images, rows["labels"], views, numbers)

        starts = standard_normal(cases, (config.restarts, config.latent_dim), runtime)
        draw = uniform_draws(cases, config.restarts, config.views * views.n_numbers, runtime)
        rows = make_rows(cases, starts, draw)
        search = RowSearch(objective=margins, optimizer=RowAdam(learning_rate=config.learning_rate), steps=config.steps)
        found = search.run(rows, target.ledger, runtime)
        labels = rows.constants["labels"]
        images = tiled(generator, runtime.tile, found.values, labels)
        scores, scored = confidences(target, images, labels, rows.owners, runtime)
        yield from reconstructions(cases, found, images, scores, latents=found.values, scored=scored, history="margin")

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: pseudo labels, guidance of the GAN, views of the search, a last look."""
        config = self.config
        guided = config.iterations * config.gan_batch_size if config.guidance_weight else 0
        views = config.restarts * config.steps * config.views
        return Forecast(
            preparation=Spending(queries=n_public + guided, gradients=guided),
            per_case=Spending(queries=views + config.restarts, gradients=views),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> ConditionalPrior:
        """Return the trained generator as a prior: samples of random pseudo labels."""
        return ConditionalPrior(self.generator(prepared, runtime))

    def generator(self, prepared: Prepared, runtime: Runtime) -> ConditionalGenerator:
        """Build the generator: latents (B, latent_dim) and labels (B,) to images."""
        n_classes = len(prepared.state["generator"]["blocks.0.norm1.scale.weight"])
        return self._restore(n_classes, prepared, runtime)

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return the preparation with other weights of the generator."""
        return Prepared(state={**prepared.state, "generator": dict(weights)})

    def _pseudo_labels(self, target: Target, images: Tensor, runtime: Runtime) -> Tensor:
        """Return the rows of the public images that the target is surest of, (K, n_top), per class."""
        scores = []
        with runtime.progress.track("pseudo labels", len(images)) as report:
            for batch in images.split(CONFIDENCE_BATCH):
                scores.append(target.scores(batch))
                report(sum(map(len, scores)))
        return top_k_per_class(torch.cat(scores), min(self.config.n_top, len(images))).indices

    def _training(self, target: Target, images: Tensor, members: Tensor, runtime: Runtime) -> ConditionalGanTraining:
        config, module = self.config, target.module
        channels, size = images.shape[1], images.shape[2]
        settings = GanSettings(
            batch_size=config.gan_batch_size, critic_steps=config.critic_steps, learning_rate=config.gan_learning_rate,
            critic_learning_rate=config.critic_learning_rate, guidance_weight=config.guidance_weight,
        )  # fmt: skip
        with runtime.seeded("plmi", "parameters"):
            generator = ConditionalGenerator(target.n_classes, config.latent_dim, size, channels, config.base)
            critic = ProjectionDiscriminator(target.n_classes, size, channels, config.base)
        return ConditionalGanTraining(
            *(runtime.maybe_compile(runtime.place_channels_last(network)) for network in (generator, critic)),
            images, members, runtime.rng("plmi", "gan"), settings,
            guidance=lambda generated, labels: max_margin(module(generated), labels),
            augmentation=self._augmentation(channels, colour_probability=0.5), autocast=runtime.autocast,
        )  # fmt: skip

    def _augmentation(self, channels: int, colour_probability: float) -> Augmentation:
        config = self.config
        return Augmentation(
            crop_area=config.crop_area, flip=default_flip(channels, config.flip), rotation=config.rotation,
            brightness=config.brightness, contrast=config.contrast, colour_probability=colour_probability,
        )  # fmt: skip

    def _restore(self, n_classes: int, prepared: Prepared | None, runtime: Runtime) -> ConditionalGenerator:
        if prepared is None:
            raise DataError("plmi was not prepared")
        channels, size = prepared.state["shape"]
        with runtime.seeded("plmi", "parameters"):
            generator = ConditionalGenerator(n_classes, self.config.latent_dim, size, channels, self.config.base)
        generator.load_state_dict(prepared.state["generator"])
        return runtime.maybe_compile(runtime.place_channels_last(generator.eval().requires_grad_(False)))
