"""Inversion by training: a network that turns a target's truncated scores back into images.

Yang, Zhang, Chang, Liang: "Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment", CCS
2019.

Threat model: black box (scores of all classes, or the largest of them); unlabelled public images of the same kind.

1. The target is asked about each public image, and about random views of it, once.
2. A decoder learns to rebuild these images from their scores, of which only the ``truncation`` largest count: what
   the scores do not tell is filled in from what public images look like.
3. For each class, score vectors that stand for it are decoded.

What is decoded. The paper inverts the scores of a victim's image; for a class it asks for a representative of the
training data. Nobody has scores of the private images here, so vectors are made: those of the public images that the
target takes for the class with the largest probabilities, with the class raised to ``confidence`` and the rest scaled
to what is left. A private image would be answered with such a vector, with doubts like these.

Fidelity notes (paper / authors' code / here)
- Scores: the authors' code takes logarithms of the largest ones, not below -1000, adds 50, and raises a row in which a
  value is still negative until its least one is 0. Here values below 0 count as 0, so that a score of 0, which answers
  of the top classes are full of, does not move the others; and all is divided by 50.
- The vectors for a class, see above, are ours.
- Decoder: five transposed convolutions (4x4, batch normalisation, tanh, at last a sigmoid) from the vector to 64 px in
  the authors' code. Here the DCGAN of `mi_image.dcgan` with the vector in the place of a latent: as many stages and
  channels, kernels of 5x5, ReLU, and a linear layer first.
- Mean squared error and Adam with AMSGrad, as published. The authors train for 100 epochs of CelebA without the
  target's people and keep the decoder that rebuilds the private images best; an adversary has none, and keeps the last.
- Statistics of batch normalisation are taken anew from all scores after the training (ours; see `batch_statistics`).
- The target is asked once about each image, not in each epoch: an eval-mode target always answers alike.
- Random views (``views``) are ours; the authors ask about public images as they are, and ``paper`` has none. With a
  few thousand images of other classes a target is sure of too few for a decoder to learn its classes from.
- Left out: the paper's white-box variant, in which target and decoder are trained together.
- The values of ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_inverse_net.decoder import DecoderSettings, decoder_state, restore_decoder
from mi_attack_inverse_net.scores import truncated_logs, vectors_of_classes
from mi_image.public_queries import PublicQueryConfig, asked
from mi_image.wgan_training import require_makeable
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.case_rows import score_rows, tiled
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class InverseNetworkConfig(PublicQueryConfig):
    """Settings of the attack; see the module's fidelity notes for where the defaults come from."""

    truncation: int = Field(1000, ge=1, description="largest scores of an answer that count (paper: from 1 to all)")
    shift: float = Field(50.0, gt=0, description="added to log-scores; what is then below 0 counts as 0 (code: 50)")
    width: int = Field(128, ge=1, description="channels of the decoder's finest hidden stage (code: 128)")
    iterations: int = Field(156_300, ge=1, description="training steps (code: 100 epochs of about 200,000 images)")
    batch_size: int = Field(128, ge=2, description="images of a training step (code: 128)")
    decoder_learning_rate: float = Field(2e-4, gt=0, description="of Adam (code: 2e-4)")
    confidence: float = Field(
        0.999, gt=0, lt=1, description="probability to which a class is raised in the vectors that stand for it"
    )
    draws: int = Field(5, ge=1, description="vectors, and so reconstructions, per class")


class InverseNetwork:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = InverseNetworkConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "views": 10, "view_area": 0.3, "view_flip": 0.5, "view_rotation": 180.0,
            "width": 16, "iterations": 1500, "batch_size": 64, "decoder_learning_rate": 2e-3, "draws": 10,
        },
        "smoke": {
            "width": 8, "iterations": 150, "batch_size": 16, "decoder_learning_rate": 5e-3, "draws": 3,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(InverseNetworkConfig.model_fields) - {"confidence", "draws"}

    def __init__(self, config: InverseNetworkConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Ask the target about the public images and their views, and train the decoder on its answers.

        Raises: DataError without public images; MiError for images of a size that the decoder cannot make.
        """
        images = self.config.public_images(public, runtime, "inverse-net")
        require_makeable(images)  # before the target is asked anything
        stages = Stages(runtime)
        answers = stages.run("answers", lambda own: {"scores": asked(target.scores, images, own)})
        vectors = self._read(answers["scores"].to(runtime.device))
        decoder = stages.run("decoder", lambda own: decoder_state(vectors, images, self._settings(), own))
        return Prepared(state={"answers": answers, "decoder": decoder})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Decode the vectors of all cases, and ask the target once about each image."""
        if prepared is None:
            raise DataError("inverse-net was not prepared")
        decoder = restore_decoder(prepared.state["decoder"], runtime)
        scores = prepared.state["answers"]["scores"].to(runtime.device)
        labels = torch.tensor([case.label for case in cases], device=runtime.device)
        vectors = vectors_of_classes(scores, labels, self.config.draws, self.config.confidence)
        images = tiled(decoder, runtime.tile, self._read(vectors.flatten(0, 1)))
        yield from self._judged(target, cases, images, labels, runtime)

    def _judged(
        self, target: Target, cases: Sequence[Case], images: Tensor, labels: Tensor, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Yield each case's images (C x draws, ...), best first by the target's score of its class.

        Raises, after the last one: BudgetExceeded when the budget did not last for all scores.
        """
        draws = self.config.draws

        def score(batch: Tensor, wanted: Tensor) -> Tensor:
            return target.scores(batch).gather(1, wanted[:, None])[:, 0]

        owners = [case.id for case in cases for _ in range(draws)]
        wanted = labels.repeat_interleave(draws)
        scores, complete = score_rows(score, runtime.tile, images, wanted, ledger=target.ledger, owners=owners)
        for case, own, mine in zip(cases, images.split(draws), scores.split(draws), strict=True):
            order = mine.argsort(descending=True, stable=True)
            yield Reconstruction(case=case, samples=own[order], scores=mine[order], complete=complete)
        if not complete:
            raise BudgetExceeded("the budget ended among the last scores", hint="raise --budget-queries")

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: public images and views once for all classes, and a last look at each image."""
        preparation = Spending(queries=self.config.public_queries(n_public))
        return Forecast(preparation=preparation, per_case=Spending(queries=self.config.draws))

    def _read(self, scores: Tensor) -> Tensor:
        return truncated_logs(scores, self.config.truncation, self.config.shift)

    def _settings(self) -> DecoderSettings:
        config = self.config
        return DecoderSettings(
            width=config.width, iterations=config.iterations, batch_size=config.batch_size,
            learning_rate=config.decoder_learning_rate,
        )  # fmt: skip
