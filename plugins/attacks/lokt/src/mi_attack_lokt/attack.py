"""LOKT: label-only model inversion via knowledge transfer.

Nguyen, Chandrasegaran, Abdollahzadeh, Cheung: "Label-Only Model Inversion Attacks via Knowledge Transfer", NeurIPS
2023.

Threat model: the target answers with its most likely class and nothing else; unlabelled public images of the same
kind.

1. A conditional GAN is trained on the public images (T-ACGAN). The class head of its discriminator learns the target's
   labels of generated images, and the generator to draw what that head takes for a class.
2. Surrogates, classifiers from scratch, are trained on images that the GAN makes for each class, with the target's
   labels of them; or the discriminator's class head serves as the surrogate (``surrogate=discriminator``).
3. PLG-MI's white-box search on the surrogates: for each class, latents whose images have the largest margin under
   random views, in the mean over the surrogates. It asks the target nothing.

Fidelity notes (paper / authors' code / here)
- Surrogates: the authors train DenseNet-121, -161 and -169; here three networks of one family in different widths (see
  `mi_image.surrogates`).
- The images of step 2 are stored as bytes, and the target is asked about these.
- The warm-up is the authors' for CelebA; they take 2000 iterations for FFHQ, 3000 for FaceScrub, 6000 for PubFig.
- Views: two in each step of the search, their losses are summed; one set of views for all surrogates.
- Losses are summed over rows, and each case and restart has its own random numbers; see PLG-MI.
- Reconstructions are given best first by the surrogates' mean confidence in the unchanged image, as asking the target
  would cost queries that the paper does not spend.
- The authors' code writes its progress into its own configuration file; here a run's state is in checkpoints.
- The presets ``default`` and ``smoke`` are ours: networks of a quarter of the width or less and a short training, for
  small pictures on a CPU.
- Networks and trainings: `mi_image.conditional_gan`, `mi_image.acgan`, `mi_image.acgan_training`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_image.acgan import TacganDiscriminator
from mi_image.acgan_training import TacganSettings, TacganTraining
from mi_image.augment import Augmentation
from mi_image.conditional_gan import ConditionalGenerator, require_makeable
from mi_image.identity import default_flip, view_losses
from mi_image.priors import ConditionalPrior
from mi_image.public_queries import asked
from mi_image.students import require_teachable, restore_students
from mi_image.surrogates import SurrogateSettings, surrogate_states
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import make_rows, reconstructions, standard_normal, tiled, uniform_draws
from micore.kit.generator_training import as_float, copied, train_generator
from micore.kit.losses import max_margin
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import RowSearch
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

RENDERED_AT_ONCE = 256


class TransferConfig(Config):
    """Settings of what all classes share; the defaults are the authors' code for CelebA at 64 px."""

    # T-ACGAN (paper section 4.1)
    latent_dim: int = Field(128, ge=1, description="dimensions of the latent space (code: 128)")
    base: int = Field(64, ge=1, description="channels of the networks' finest block (code: 64)")
    warm_up: int = Field(1000, ge=0, description="generator steps without class term or queries (code: 1000)")
    iterations: int = Field(19_000, ge=1, description="generator steps after these (code: 19,000)")
    gan_batch_size: int = Field(128, ge=2, description="images of one GAN step (code: 128)")
    critic_steps: int = Field(5, ge=1, description="discriminator steps per generator step (code: 5)")
    gan_learning_rate: float = Field(2e-4, gt=0, description="of both Adams (code: 2e-4)")
    class_weight: float = Field(1.5, ge=0, description="weight of the class term (paper alpha: 1.5)")
    # surrogates (paper section 4.2)
    surrogate: Literal["networks", "discriminator"] = Field(
        "networks",
        description="what is searched: classifiers from scratch (paper S), or the GAN's class head (paper D)",
    )
    per_class: int = Field(500, ge=1, description="images for each class that surrogates learn from (code: 500)")
    surrogate_network: Literal["small-cnn", "small-resnet", "resnet18"] = Field(
        "resnet18", description="architecture of the surrogates (code: DenseNets)"
    )
    surrogate_widths: tuple[int, ...] = Field(
        (48, 64, 80), min_length=1, description="their widths, one surrogate for each (paper: three, or one)"
    )
    surrogate_steps: int = Field(
        23_400, ge=1, description="steps of their training (code: 200 epochs of 30,000 images)"
    )
    surrogate_batch_size: int = Field(256, ge=2, description="images of one step (code: 256)")
    surrogate_learning_rate: float = Field(0.1, gt=0, description="of their SGD, falling to 0 (code: 0.1)")
    # views, in the surrogates' training and in the search
    crop_area: float = Field(0.8, gt=0, le=1, description="smallest area of a random crop (code: 0.8)")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image (code: 0.5); none: 0.5 for colour, 0 for grey"
    )
    rotation: float = Field(5.0, ge=0, description="largest rotation in degrees (code: 5)")
    brightness: float = Field(0.2, ge=0, description="largest relative change of brightness (code: 0.2)")
    contrast: float = Field(0.2, ge=0, description="largest relative change of contrast (code: 0.2)")


class KnowledgeTransferConfig(TransferConfig):
    """Settings of LOKT; the defaults of single fields are the authors' code, presets change them."""

    steps: int = Field(600, ge=0, description="Adam steps of the search (code: 600)")
    learning_rate: float = Field(0.1, gt=0, description="of the search's Adam (code: 0.1)")
    views: int = Field(2, ge=1, description="random views per step (paper: 2)")
    restarts: int = Field(5, ge=1, description="reconstructions per class (paper: 5)")


class KnowledgeTransfer:
    """The attack LOKT (see the module's documentation)."""

    Config: ClassVar[type[Config]] = KnowledgeTransferConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "latent_dim": 64, "base": 16, "warm_up": 150, "iterations": 550, "gan_batch_size": 64, "critic_steps": 1,
            "gan_learning_rate": 5e-4, "per_class": 500, "surrogate_network": "small-cnn",
            "surrogate_widths": [12, 16, 20], "surrogate_steps": 300, "surrogate_batch_size": 64,
            "surrogate_learning_rate": 0.05, "steps": 150, "restarts": 10,
        },
        "smoke": {
            "latent_dim": 16, "base": 8, "warm_up": 10, "iterations": 100, "gan_batch_size": 32, "critic_steps": 1,
            "gan_learning_rate": 7e-3, "per_class": 32, "surrogate_network": "small-cnn", "surrogate_widths": [5],
            "surrogate_steps": 50, "surrogate_batch_size": 16, "surrogate_learning_rate": 0.05, "steps": 20,
            "restarts": 3,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(TransferConfig.model_fields)

    def __init__(self, config: KnowledgeTransferConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train T-ACGAN with the target's labels, have its images labelled, and train the surrogates.

        Raises: DataError without public images; MiError for images of a size that the GAN cannot make or the
        surrogates cannot take.
        """
        if public is None or len(public) == 0:
            raise DataError("lokt needs public images")
        images, config = public.take(torch.arange(len(public))).to(runtime.device), self.config
        require_makeable(images, config.base)  # before the target is asked anything
        if config.surrogate == "networks":
            require_teachable(images)
        stages = Stages(runtime)
        gan = stages.run("gan", lambda stage: self._train_gan(target, images, stage))
        if config.surrogate == "discriminator":
            return Prepared(state={"gan": gan})
        generator, n = self._generator(gan, runtime), target.n_classes
        made = render(generator, n, config.per_class, runtime)

        def seen(pixels: Tensor) -> Tensor:
            return target.labels(as_float(pixels))

        answers = stages.run("labels", lambda stage: {"labels": asked(seen, made, stage)})
        labels, views = answers["labels"].to(runtime.device), self._augmentation(generator.channels, 0.5)
        surrogates = stages.run(
            "surrogates", lambda stage: surrogate_states(made, labels, n, views, self._surrogate_settings(), stage)
        )
        return Prepared(state={"gan": gan, "surrogates": surrogates})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the latents of all restarts of all cases (section 4.3); the target is not asked."""
        config, state = self.config, _state(prepared)
        generator, surrogates = self._generator(state["gan"], runtime), self._surrogates(state, runtime)
        views = self._augmentation(generator.channels, colour_probability=1.0)

        def margins(latents: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            images, labels = generator(latents, rows["labels"]), rows["labels"]
            losses = [view_losses(logits, max_margin, images, labels, views, numbers) for logits in surrogates]
            return torch.stack(losses).mean(dim=0)

        starts = standard_normal(cases, (config.restarts, config.latent_dim), runtime)
        rows = make_rows(cases, starts, uniform_draws(cases, config.restarts, config.views * views.n_numbers, runtime))
        search = RowSearch(objective=margins, optimizer=RowAdam(learning_rate=config.learning_rate), steps=config.steps)
        found = search.run(rows, target.ledger, runtime)
        labels = rows.constants["labels"]
        images = tiled(generator, runtime.tile, found.values, labels)
        scores = tiled(mean_confidence(surrogates), runtime.tile, images, labels)
        yield from reconstructions(cases, found, images, scores, latents=found.values, history="margin")

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the labels: each discriminator step after the warm-up, the surrogates' images; the search has none."""
        config = self.config
        taught = config.iterations * config.critic_steps * config.gan_batch_size
        transfer = n_classes * config.per_class if config.surrogate == "networks" else 0
        return Forecast(preparation=Spending(queries=taught + transfer), per_case=Spending())

    def prior(self, prepared: Prepared, runtime: Runtime) -> ConditionalPrior:
        """Return the trained generator as a prior: samples of random labels. The target's labels taught it."""
        return ConditionalPrior(self.generator(prepared, runtime))

    def generator(self, prepared: Prepared, runtime: Runtime) -> ConditionalGenerator:
        """Build the generator: latents (B, latent_dim) and labels (B,) to images."""
        return self._generator(_state(prepared)["gan"], runtime)

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return the preparation with other weights of the generator."""
        gan = {**prepared.state["gan"], "generator": dict(weights)}
        return Prepared(state={**prepared.state, "gan": gan})

    def _train_gan(self, target: Target, images: Tensor, stage: Runtime) -> Mapping[str, Any]:
        config = self.config
        arguments = {"n_classes": target.n_classes, "channels": images.shape[1], "size": images.shape[2]}
        settings = TacganSettings(
            batch_size=config.gan_batch_size, critic_steps=config.critic_steps, warm_up=config.warm_up,
            learning_rate=config.gan_learning_rate, class_weight=config.class_weight,
        )  # fmt: skip
        generator, discriminator = self._networks(arguments, stage)
        for network in (generator, discriminator):
            stage.maybe_compile(stage.place_channels_last(network))
        training = TacganTraining(
            generator, discriminator, images, target.labels, stage.rng("lokt", "gan"), settings, stage.autocast
        )
        total, saved = config.warm_up + config.iterations, stage.checkpoints.load()
        train_generator(training, total, stage, "training the target-assisted GAN", saved)
        weights = {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}
        return {"arguments": arguments, **{name: copied(tensors) for name, tensors in weights.items()}}

    def _networks(
        self, arguments: Mapping[str, Any], runtime: Runtime
    ) -> tuple[ConditionalGenerator, TacganDiscriminator]:
        n_classes, size, channels = (int(arguments[name]) for name in ("n_classes", "size", "channels"))
        with runtime.seeded("lokt", "parameters"):
            generator = ConditionalGenerator(n_classes, self.config.latent_dim, size, channels, self.config.base)
            return generator, TacganDiscriminator(n_classes, size, channels, self.config.base)

    def _generator(self, gan: Mapping[str, Any], runtime: Runtime) -> ConditionalGenerator:
        generator, _ = self._networks(gan["arguments"], runtime)
        generator.load_state_dict(gan["generator"])
        return runtime.maybe_compile(runtime.place_channels_last(generator.eval().requires_grad_(False)))

    def _surrogates(self, state: Mapping[str, Any], runtime: Runtime) -> list[Callable[[Tensor], Tensor]]:
        """Return what is searched in the target's stead: images (B, C, H, W) in [0, 1] to class logits (B, K)."""
        if self.config.surrogate == "networks":
            return list(restore_students(state["surrogates"], runtime))
        _, discriminator = self._networks(state["gan"]["arguments"], runtime)
        discriminator.load_state_dict(state["gan"]["discriminator"])
        runtime.maybe_compile(runtime.place_channels_last(discriminator.eval().requires_grad_(False)))
        return [lambda images: discriminator(images)[1]]

    def _surrogate_settings(self) -> SurrogateSettings:
        config = self.config
        return SurrogateSettings(
            network=config.surrogate_network, widths=config.surrogate_widths, steps=config.surrogate_steps,
            batch_size=config.surrogate_batch_size, learning_rate=config.surrogate_learning_rate,
        )  # fmt: skip

    def _augmentation(self, channels: int, colour_probability: float) -> Augmentation:
        config = self.config
        return Augmentation(
            crop_area=config.crop_area, flip=default_flip(channels, config.flip), rotation=config.rotation,
            brightness=config.brightness, contrast=config.contrast, colour_probability=colour_probability,
        )  # fmt: skip


@torch.no_grad()
def render(generator: ConditionalGenerator, n_classes: int, per_class: int, runtime: Runtime) -> Tensor:
    """Return ``per_class`` generated images of each class, (K * per_class, C, H, W), as bytes; always the same ones."""
    labels = torch.arange(n_classes, device=runtime.device).repeat_interleave(per_class)
    rng, parts = runtime.rng("lokt", "images"), []
    for wanted in labels.split(RENDERED_AT_ONCE):
        with runtime.autocast():
            images = generator(rng.normal((len(wanted), generator.latent_dim)), wanted)
        parts.append((images.float() * 255).round().to(torch.uint8))
    return torch.cat(parts)


def mean_confidence(surrogates: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of images and labels (B,) to the surrogates' mean probability of these labels (B,)."""

    def confidence(images: Tensor, labels: Tensor) -> Tensor:
        probabilities = [logits(images).float().softmax(dim=1) for logits in surrogates]
        return torch.stack(probabilities).mean(dim=0).gather(1, labels[:, None])[:, 0]

    return confidence


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("lokt was not prepared")
    return prepared.state
