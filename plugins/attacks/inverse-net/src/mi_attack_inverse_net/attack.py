"""Inversion by training: a network that turns a target's truncated scores back into images.

Yang, Zhang, Chang, Liang: "Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment", CCS
2019.

Threat model: black box (scores of all classes, or the largest of them); unlabelled public images of the same kind.

1. The target is asked about each public image, once.
2. A decoder learns to rebuild the public images from their scores, of which only the ``truncation`` largest count: what
   the scores do not tell is filled in from what public images look like.
3. For each class, score vectors that stand for it are decoded.

What is decoded. The paper inverts the scores of a victim's image; for a class it asks for a representative of the
training data. Nobody has scores of the private images here, so vectors are made: those of the public images that the
target takes for the class with the largest probabilities, with the class raised to ``confidence`` and the rest scaled
to what is left. A private image would be answered with such a vector, with doubts like these. So the result is an
average of public-like images that the target would be sure of, as far as the decoder goes beyond the vectors that it
has seen: no public image need have been answered with a vector like it.

Fidelity notes (paper / authors' code / here)
- Scores: logarithms, shifted by 50 and cut off at 0 (the form that C2F-MI's code took over from this line of work); the
  ``truncation`` largest are kept. Here also divided by the shift, so that they are in [0, 1].
- The vectors for a class, see above, are ours.
- Decoder: transposed convolutions from the vector to the image, mean squared error, as in the paper; here with the
  shape of the DCGAN of `mi_image.dcgan`, which takes a vector in the place of a latent.
- Adam's numbers, the batch and the length of the training in ``paper`` are those usual in this line of work at 64 px;
  they are not compared with the authors' code. ``default`` and ``smoke`` are ours.
- The target is asked once about each public image, not in each epoch: an eval-mode target always answers alike.
- Left out: the paper's white-box variant, in which target and decoder are trained together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_inverse_net.decoder import DecoderSettings, decoder_state, restore_decoder
from mi_attack_inverse_net.scores import ask_public, truncated_logs, vectors_of_classes
from mi_image.wgan_training import require_makeable
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.case_rows import score_rows, tiled
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class InverseNetworkConfig(Config):
    """Settings of the attack; see the module's fidelity notes for where the defaults come from."""

    truncation: int = Field(1000, ge=1, description="largest scores of an answer that count (paper: from 1 to all)")
    shift: float = Field(50.0, gt=0, description="added to log-scores; what is then below 0 counts as 0 (code: 50)")
    width: int = Field(64, ge=1, description="channels of the decoder's finest hidden stage")
    iterations: int = Field(23_400, ge=1, description="training steps (100 epochs of 30,000 images)")
    batch_size: int = Field(128, ge=2, description="images of a training step")
    decoder_learning_rate: float = Field(2e-4, gt=0, description="of Adam")
    confidence: float = Field(
        0.99, gt=0, lt=1, description="probability to which a class is raised in the vectors that stand for it"
    )
    draws: int = Field(5, ge=1, description="vectors, and so reconstructions, per class")


class InverseNetwork:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = InverseNetworkConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "width": 16, "iterations": 2000, "batch_size": 32, "decoder_learning_rate": 2e-3, "draws": 10,
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
        """Ask the target about the public images, and train the decoder on its answers.

        Raises: DataError without public images; MiError for images of a size that the decoder cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("inverse-net needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        require_makeable(images)
        stages = Stages(runtime)
        answers = stages.run("answers", lambda own: {"scores": ask_public(target, images, own)})
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
        """Count the target's work: each public image once for all classes, and a last look at each image."""
        return Forecast(preparation=Spending(queries=n_public), per_case=Spending(queries=self.config.draws))

    def _read(self, scores: Tensor) -> Tensor:
        return truncated_logs(scores, self.config.truncation, self.config.shift)

    def _settings(self) -> DecoderSettings:
        config = self.config
        return DecoderSettings(
            width=config.width, iterations=config.iterations, batch_size=config.batch_size,
            learning_rate=config.decoder_learning_rate,
        )  # fmt: skip
