"""Prediction purification.

Yang, Shao, Xuan, Chang, Zhang: "Defending Model Inversion and Membership Inference Attacks via Prediction
Purification", 2020 (arXiv:2005.03915).

Threat model: an adversary who sees scores and inverts them, such as with a network that it trained on pairs of
scores and samples. The classifier stays as it is; what it answers goes through an autoencoder P, trained on
samples that the classifier was not:

    loss = ||P(z) - z||^2 + lambda_c CE(P(z), argmax z) - lambda_adv ||g(softmax P(z)) - x||^2

The bottleneck drops what tells the answers of one class apart. The last term, off by default, makes the
purifier a dedicated one: g is an inversion network that is trained in turns with it.

Fidelity notes (paper / code of others / here)
- Input: the paper purifies scores; code of others purifies logits. Here logits are taken from the scores as
  earlier defenses leave them: their logarithm, at least -27.6, minus its mean over the classes.
- Sizes: only others' code gives them, 10-7-4-7-10 and 530-100-530. A formula meets both; see `widths`.
- Layers: others use ReLU and batch normalisation. Here ELU, so that no unit of a bottleneck of two or three is
  dead, and constants in place of batch statistics, so that no answer depends on its batch.
- The weights of the terms are (1, 1) in others' code, whose squared error is a mean over the classes, as here.
- CE is taken to the target's own label, not to the true one, which others use: the purifier is to keep it.
- The label is kept for certain: where it would change, the two entries swap places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_defense_purifier.autoencoder import Autoencoder, dispersion, guarded, logits_of, purification_loss, widths
from mi_defense_purifier.inversion import InversionNetwork, shrunk
from micore.contracts import Config, Defense, Fitting
from micore.errors import ModelError
from micore.records import Samples
from micore.runtime import Random

ANSWER_BATCH = 256
FEW_CLASSES = 100


class PurifierConfig(Config):
    """Settings of the defense."""

    bottleneck: int | None = Field(
        None, ge=1, description="width of the bottleneck; none: 0.617 K^0.81 of K classes, 4 for 10 and 100 for 530"
    )
    middle_layer: Literal["auto", "always", "never"] = Field(
        "auto",
        description="a layer between input and bottleneck; auto: up to 100 classes (others' code: at 10, not 530)",
    )
    label_weight: float = Field(1.0, ge=0, description="lambda_c, of the cross-entropy to the label (others' code: 1)")
    inversion_weight: float = Field(
        0.0, ge=0, description="lambda_adv, against an inversion network, for tensors (others' code: 1; here off)"
    )
    steps: int = Field(400, ge=1, description="training steps; own choice (others' code: 20 epochs)")
    batch_size: int = Field(128, ge=1, description="answers per step (others' code: 128 and 256)")
    learning_rate: float = Field(
        2e-2, gt=0, description="of Adam, falling to 0 (others' code: 2e-2 of 10 classes, 5e-4 of 530; constant)"
    )
    samples: int = Field(10_000, ge=2, description="fit on at most so many reference samples; own choice")


class Purifier(Defense):
    """Pass the scores through an autoencoder that keeps their label."""

    Config: ClassVar[type[Config]] = PurifierConfig
    config: PurifierConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._network: Autoencoder | None = None
        self._facts: dict[str, Any] = {}

    @torch.enable_grad()
    def fit(self, fitting: Fitting) -> None:
        """Train the autoencoder on the answers to the reference samples.

        Raises: ModelError without two of them, or when the inversion term is asked for samples that are no tensors.
        """
        rng = fitting.runtime.rng("purifier", "batches")
        rows = rng.permutation(len(fitting.reference))[: self.config.samples]
        if len(rows) < 2:
            raise ModelError(
                f"purifier: {len(rows)} reference samples are too few to fit on", hint="train with more data"
            )
        scores, samples = self._answers(fitting, rows)
        with fitting.runtime.seeded("purifier", "parameters"):
            network = fitting.runtime.place(Autoencoder(self._widths(scores.shape[1])))
            opponent = None
            if samples is not None:
                opponent = InversionNetwork(scores.shape[1], samples, self.config.learning_rate)
        self._train(network, logits_of(scores), opponent, samples, rng)
        self._network = network.requires_grad_(False).eval()
        self._facts = self._measured(scores, fitting)

    def _widths(self, n_classes: int) -> list[int]:
        middle = {"always": True, "never": False}.get(self.config.middle_layer, n_classes <= FEW_CLASSES)
        return widths(n_classes, self.config.bottleneck, middle)

    def _answers(self, fitting: Fitting, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scores (N, K), and the samples as vectors (N, d) if the training needs them."""
        scores, samples = [], []
        for part in rows.split(ANSWER_BATCH):
            asked = fitting.reference.take(part)
            asked = asked.to(fitting.runtime.device) if isinstance(asked, Tensor) else asked
            scores.append(fitting.answer(asked).float())
            if self.config.inversion_weight:
                samples.append(shrunk(asked))
        return torch.cat(scores), torch.cat(samples) if samples else None

    def _train(
        self, network: Autoencoder, logits: Tensor, opponent: InversionNetwork | None, samples: Tensor | None,
        rng: Random,
    ) -> None:  # fmt: skip
        network.measure(logits)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.steps)
        size = min(self.config.batch_size, len(logits))
        for _ in range(self.config.steps):
            rows = rng.integers(len(logits), (size,))
            purified = network(logits[rows])
            loss = purification_loss(purified, logits[rows], self.config.label_weight)
            if opponent is not None and samples is not None:
                opponent.learn(purified, samples[rows])
                loss = loss - self.config.inversion_weight * opponent.error(purified, samples[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def _measured(self, scores: Tensor, fitting: Fitting) -> dict[str, Any]:
        purified, labels = self._purified(scores), scores.argmax(dim=1)
        given = guarded(purified, scores)
        distortion = (given - scores).abs().sum(dim=1).cpu()
        return {
            "samples": len(scores),
            "reference_is_fresh": fitting.reference_is_fresh,
            "widths": self._widths(scores.shape[1]),
            "l1_distortion_mean": round(float(distortion.mean()), 5),
            "l1_distortion_95": round(float(distortion.quantile(0.95)), 5),
            "guarded_share": round(float((purified.argmax(dim=1) != labels).float().mean()), 5),
            "score_dispersion": [round(float(dispersion(part, labels)), 6) for part in (scores, given)],
            "logit_dispersion": [round(float(dispersion(logits_of(part), labels)), 4) for part in (scores, given)],
        }

    def facts(self) -> Mapping[str, Any]:
        """Return what it was fitted on and how far it moves those answers.

        Dispersions, before and after, are total variances within the classes that the target sees.
        """
        return self._facts

    def state(self) -> Mapping[str, Tensor]:
        """Return the weights."""
        return {} if self._network is None else self._network.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Build the autoencoder again from the shapes of its weights.

        Raises: ModelError when they are none of it.
        """
        inward = [tensor for name, tensor in sorted(state.items()) if name.endswith("weight") and tensor.ndim == 2]
        inward = inward[: len(inward) // 2]
        try:
            network = Autoencoder([int(inward[0].shape[1]), *(int(tensor.shape[0]) for tensor in inward)])
            network.load_state_dict(dict(state), strict=True)
        except (IndexError, RuntimeError) as error:
            raise ModelError(
                "purifier: the state in the bundle is not its own", hint="train or defend again"
            ) from error
        self._network = network.requires_grad_(False).eval()

    def _purified(self, scores: Tensor) -> Tensor:
        purified: Tensor = self._fitted().to(scores.device)(logits_of(scores)).softmax(dim=1)
        return purified

    def _fitted(self) -> nn.Module:
        if self._network is None:
            raise ModelError("purifier: it was not fitted", hint="train or defend again")
        return self._network

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return the purified scores, with the label that they had."""
        return guarded(self._purified(scores), scores)
