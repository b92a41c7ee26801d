"""P2I-MI: an encoder turns predictions of the target into codes of a StyleGAN, in one pass and without a search.

Liu, Zhang, Wu, Lin, Gu, Wang: "Prediction Exposes Your Face: Black-box Model Inversion via Prediction Alignment", ECCV
2024 (arXiv:2407.08127).

Threat model: black box (scores of all classes, or the largest of them); unlabelled public images of the same kind, and
a StyleGAN of such images, from a file or trained on them.

1. The target scores samples of the prior and the public images, once each.
2. The prediction alignment encoder learns to tell from a prediction the codes (W+, one for each layer) of an image that
   the target answers so.
3. Aligned ensemble attack: for each class, the predictions of the public images that come nearest to it get a little
   more probability of it and are encoded; the codes are averaged, weighted by that probability, and rendered.

Fidelity notes (paper / authors' code / here)
- Step 3 is the authors' code: the 10 best public images of a class, 0.035 more probability where there is room, the
  others in proportion, the aligned probability as a weight. They give back one image for each class; here further ones
  (``draws``) are of the next best images, dealt in turn, after a last look by the target at each.
- The encoder, as theirs, first draws a picture of the log-scores with transposed convolutions, looks at it with a
  network, and tells the codes from four stages of it, pooled to 3x3. Theirs is an ArcFace ResNet-50 that knows faces
  already; here small stages (a convolution, batch normalisation, PReLU) that know nothing.
- Losses: squared errors of the image and of the encoder's own picture, weight 1 each, as theirs. Left out are LPIPS
  (0.2), ArcFace's identity (0.1) and face parsing (0.1), which are networks trained on other data. The error of a
  sample's codes (``code_weight``) is ours; they have none.
- Training: 31 epochs of 2500 steps of 4 samples and 4 public images; the rate falls to a tenth every 10 epochs, here
  after each third. They use Ranger, here Adam with its numbers.
- They train on the public images that are among the 10 best of a class, here on all that were asked about.
- Random views of public images (``views``) are ours. Samples use one code for all layers, so there is no ``cutoff``.
- The values of ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mi_attack_p2i_mi.encoder import EncoderSettings, Pairs, encoder_state, resized, restore_encoder
from mi_attack_p2i_mi.predictions import ensembles_of_classes
from mi_image.bank import CandidateBank
from mi_image.public_queries import PUBLIC_FIELDS, PublicQueryConfig, asked
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    StyleRenderer,
    bank_stage,
    prior_stage,
    restore_ground,
    unscored_ground,
    with_renderer,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded
from micore.kit.case_rows import score_rows, tiled
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "p2i-mi"


class PredictionToImageConfig(StylePriorConfig, PublicQueryConfig):
    """Settings of the attack; the numbers are the authors' code, unless said otherwise."""

    bank: int = Field(10_000, ge=2, description="samples of the prior that the target scores (code: 10,000)")
    psi: float = Field(1.0, ge=0, description="truncation of the samples; 1: none (code: 1)")
    width: int = Field(32, ge=1, description="channels of the encoder's finest stages (code: 32 and 64)")
    encoder_iterations: int = Field(77_500, ge=1, description="training steps (code: 31 epochs of 2500)")
    encoder_batch_size: int = Field(4, ge=1, description="samples, and as many public images, of a step (code: 4)")
    encoder_learning_rate: float = Field(1e-4, gt=0, description="of the encoder's Adam (code: 1e-4, of Ranger)")
    code_weight: float = Field(0.0, ge=0, description="of the error of a sample's codes, in deviations (code: none)")
    boost: float = Field(0.035, ge=0, lt=1, description="probability of the class that alignment adds (code: 0.035)")
    ensemble: int = Field(10, ge=1, description="predictions whose codes are averaged in a reconstruction (code: 10)")
    draws: int = Field(5, ge=1, description="reconstructions per class, each of an ensemble of its own (code: 1)")

    @model_validator(mode="after")
    def _one_code(self) -> PredictionToImageConfig:
        if self.cutoff is not None:
            raise ValueError("cutoff: samples use one code for all layers here; leave it out")
        return self


ENCODER_FIELDS = frozenset(
    {"width", "encoder_iterations", "encoder_batch_size", "encoder_learning_rate", "code_weight"}
)


class PredictionToImage:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = PredictionToImageConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL, "views": 10, "view_area": 0.3, "view_flip": 0.5, "view_rotation": 180.0, "width": 16,
            "encoder_iterations": 800, "encoder_batch_size": 16, "encoder_learning_rate": 2e-3, "draws": 5,
        },
        "smoke": {
            **TINY, "width": 8, "encoder_iterations": 60, "encoder_batch_size": 8, "encoder_learning_rate": 5e-3,
            "draws": 3, "ensemble": 4,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS | PUBLIC_FIELDS | ENCODER_FIELDS

    def __init__(self, config: PredictionToImageConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, ask the target about its samples and the public images, and train the encoder.

        Raises: DataError without public images; what is wrong with the prior's file or the images.
        """
        config, stages = self.config, Stages(runtime)
        shown = config.public_images(public, runtime, NAME)
        prior = prior_stage(config, public, stages, NAME)
        ground = unscored_ground(config, prior, runtime)
        bank = bank_stage(ground, target.scores, stages)
        answers = stages.run("answers", lambda own: {"scores": asked(target.scores, shown, own)})
        pairs = self._pairs(CandidateBank.restore(bank, runtime), answers, shown, ground)
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
        scores = state["answers"]["scores"].to(runtime.device)
        labels = torch.tensor([case.label for case in cases], device=runtime.device)
        chosen = ensembles_of_classes(scores, labels, config.draws, config.ensemble, config.boost)
        codes = tiled(encoder, runtime.tile, chosen.predictions.flatten(0, 2))
        members = codes.unflatten(0, (-1, config.ensemble))
        return (members * chosen.weights.flatten(0, 1)[..., None, None]).sum(dim=1)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: samples, public images and views once, and a last look at each image."""
        return Forecast(
            preparation=Spending(queries=self.config.bank_queries + self.config.public_queries(n_public)),
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

    @staticmethod
    def _pairs(bank: CandidateBank, answers: Mapping[str, Any], images: Tensor, ground: StyleGround) -> Pairs:
        scores = answers["scores"].to(images.device)
        like = ground.render(bank.styles[:1])
        return Pairs(styles=bank.styles, scores=bank.scores, images=_fitted(images, like), public_scores=scores)

    def _encoder_settings(self) -> EncoderSettings:
        config = self.config
        return EncoderSettings(
            width=config.width, iterations=config.encoder_iterations, batch_size=config.encoder_batch_size,
            learning_rate=config.encoder_learning_rate, code_weight=config.code_weight,
        )  # fmt: skip


def _fitted(images: Tensor, like: Tensor) -> Tensor:
    """Return public images in the size and the channels of the prior's pictures."""
    return resized(images, like.shape[2]).expand(-1, like.shape[1], -1, -1)
