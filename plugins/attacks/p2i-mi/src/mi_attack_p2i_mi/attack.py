"""In the manner of P2I-MI: an encoder turns predictions of the target into codes of a StyleGAN, in one pass.

"P2I-MI", ECCV 2024: prediction-to-image model inversion.

Threat model: black box (scores of all classes); unlabelled public images of the same kind, and a StyleGAN of such
images, from a file or trained on them.

1. The target scores samples of the prior and the public images, once each.
2. An encoder learns to tell from a prediction the codes (W+, one for each layer) of an image that the target
   answers so.
3. For each class, the predictions that come nearest to it are aligned to it (the class raised to ``confidence``,
   the doubts kept) and encoded; the codes of an ensemble are averaged and rendered. There is no search.

Fidelity notes (paper / authors' code / here)
- What is known here of the paper: an encoder from aligned predictions to W+ of a StyleGAN; an ensemble of the
  predictions of public images with the same label, aligned to the class under attack; one pass; about a hundredth of
  the queries of searches. Everything else is ours, so that this is an attack in the manner of P2I-MI rather than a
  reproduction: how predictions are aligned and read, the encoder's shape, its losses, the numbers of its training, and
  how ensembles are gathered and weighed.
- The encoder learns from samples of the prior, whose codes are known, and from public images, through the prior.
- Samples use one code for all layers, so there is no ``cutoff``.
- The preset ``paper`` has the sizes of the StyleGAN's release; its other numbers are ours, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from mi_attack_p2i_mi.encoder import EncoderSettings, Pairs, encoder_state, restore_encoder
from mi_attack_p2i_mi.predictions import ask_public, ensembles_of_classes
from mi_image.bank import CandidateBank, fill_bank
from mi_image.prior_choice import stylegan_state
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    StyleRenderer,
    restore_ground,
    with_renderer,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.case_rows import score_rows, tiled
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "p2i-mi"


class PredictionToImageConfig(StylePriorConfig):
    """Settings of the attack; the numbers are ours, but for the prior's (see the module's fidelity notes)."""

    bank: int = Field(2000, ge=2, description="samples of the prior that the encoder learns from, one query each")
    psi: float = Field(1.0, ge=0, description="truncation of the samples; 1: none")
    hidden: int = Field(512, ge=1, description="units of each of the encoder's two hidden layers")
    encoder_iterations: int = Field(20_000, ge=1, description="training steps of the encoder")
    encoder_batch_size: int = Field(16, ge=1, description="samples and as many public images of a training step")
    encoder_learning_rate: float = Field(1e-3, gt=0, description="of the encoder's Adam")
    code_weight: float = Field(0.1, ge=0, description="of the error of a sample's code, in the prior's deviations")
    image_weight: float = Field(10.0, ge=0, description="of the error of the image")
    confidence: float = Field(0.99, gt=0, lt=1, description="probability to which a class is raised in predictions")
    ensemble: int = Field(10, ge=1, description="predictions whose codes are averaged in a reconstruction")
    draws: int = Field(5, ge=1, description="reconstructions per class, each of an ensemble of its own")

    @model_validator(mode="after")
    def _one_code(self) -> PredictionToImageConfig:
        if self.cutoff is not None:
            raise ValueError("cutoff: samples use one code for all layers here; leave it out")
        return self


ENCODER_FIELDS = frozenset(
    {"hidden", "encoder_iterations", "encoder_batch_size", "encoder_learning_rate", "code_weight", "image_weight"}
)


class PredictionToImage:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = PredictionToImageConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL, "hidden": 128, "encoder_iterations": 800, "encoder_batch_size": 16, "draws": 10},
        "smoke": {
            **TINY, "hidden": 32, "encoder_iterations": 60, "encoder_batch_size": 8, "encoder_learning_rate": 5e-3,
            "draws": 3, "ensemble": 4,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS | ENCODER_FIELDS

    def __init__(self, config: PredictionToImageConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, ask the target about its samples and the public images, and train the encoder.

        Raises: DataError without public images; what is wrong with the prior's file or the images.
        """
        if public is None or len(public) == 0:
            raise DataError(f"{NAME} needs public images")
        config, images, stages = self.config, public.take(torch.arange(len(public))), Stages(runtime)
        prior = stages.run("prior", lambda own: stylegan_state(config.prior, images, config.gan_settings(), own))
        ground = self._unscored(prior, runtime)
        bank = stages.run(
            "bank", lambda own: fill_bank(ground.generator, target.scores, ground.settings, own, ground.cut).state()
        )
        images = images.to(runtime.device)
        answers = stages.run("answers", lambda own: {"scores": ask_public(target, images, own)})
        pairs = self._pairs(CandidateBank.restore(bank, runtime), answers, images, ground)
        encoder = stages.run(
            "encoder",
            lambda own: encoder_state(ground.render, ground.generator.num_ws, pairs, self._encoder_settings(), own),
        )
        return Prepared(state={"prior": prior, "bank": bank, "answers": answers, "encoder": encoder})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Encode and render the ensembles of all cases, and ask the target once about each image."""
        ground = restore_ground(self.config, prepared, runtime, NAME)
        codes = self._codes(cases, prepared.state if prepared else {}, ground, runtime)
        images = tiled(ground.render, runtime.tile, codes)
        labels = torch.tensor([case.label for case in cases], device=runtime.device)
        draws = self.config.draws

        def score(batch: Tensor, wanted: Tensor) -> Tensor:
            return target.scores(batch).gather(1, wanted[:, None])[:, 0]

        owners = [case.id for case in cases for _ in range(draws)]
        wanted = labels.repeat_interleave(draws)
        scores, complete = score_rows(score, runtime.tile, images, wanted, ledger=target.ledger, owners=owners)
        for case, *parts in zip(cases, images.split(draws), scores.split(draws), codes.split(draws), strict=True):
            order = parts[1].argsort(descending=True, stable=True)
            samples, own, latents = (part[order] for part in parts)
            yield Reconstruction(case=case, samples=samples, scores=own, latents=latents, complete=complete)
        if not complete:
            raise BudgetExceeded("the budget ended among the last scores", hint="raise --budget-queries")

    def _codes(self, cases: Sequence[Case], state: Mapping[str, Any], ground: StyleGround, runtime: Runtime) -> Tensor:
        """Return the averaged codes (C x draws, num_ws, w_dim)."""
        config, encoder = self.config, restore_encoder(state["encoder"], runtime)
        scores = torch.cat([ground.bank.scores, state["answers"]["scores"].to(runtime.device)])
        labels = torch.tensor([case.label for case in cases], device=runtime.device)
        chosen = ensembles_of_classes(scores, labels, config.draws, config.ensemble, config.confidence)
        codes = tiled(encoder, runtime.tile, chosen.predictions.flatten(0, 2))
        members = codes.unflatten(0, (-1, config.ensemble))
        return (members * chosen.weights.flatten(0, 1)[..., None, None]).sum(dim=1)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: samples and public images once for all classes, and a last look at each image."""
        return Forecast(
            preparation=Spending(queries=self.config.bank_queries + n_public),
            per_case=Spending(queries=self.config.draws),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the samples are."""
        return restore_ground(self.config, prepared, runtime, NAME)

    def generator(self, prepared: Prepared, runtime: Runtime) -> StyleRenderer:
        """Build the network that makes pictures of style codes."""
        return StyleRenderer(self.prior(prepared, runtime))

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of that network; the encoder stays as it is."""
        return with_renderer(prepared, weights)

    def _unscored(self, prior: Mapping[str, Any], runtime: Runtime) -> StyleGround:
        empty = CandidateBank(styles=torch.empty(0), scores=torch.empty(0)).state()
        return self.prior(Prepared(state={"prior": prior, "bank": empty}), runtime)

    @staticmethod
    def _pairs(bank: CandidateBank, answers: Mapping[str, Any], images: Tensor, ground: StyleGround) -> Pairs:
        scores = answers["scores"].to(images.device)
        like = ground.render(bank.styles[:1])
        return Pairs(styles=bank.styles, scores=bank.scores, images=_fitted(images, like), public_scores=scores)

    def _encoder_settings(self) -> EncoderSettings:
        config = self.config
        return EncoderSettings(
            hidden=config.hidden, iterations=config.encoder_iterations, batch_size=config.encoder_batch_size,
            learning_rate=config.encoder_learning_rate, code_weight=config.code_weight,
            image_weight=config.image_weight,
        )  # fmt: skip


def _fitted(images: Tensor, like: Tensor) -> Tensor:
    """Return public images in the size and the channels of the prior's pictures."""
    if images.shape[2:] != like.shape[2:]:
        images = functional.interpolate(images, like.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)
    return images.expand(-1, like.shape[1], -1, -1)
