"""Stealthy Shield Defense (SSD).

"Stealthy Shield Defense: A Conditional Mutual Information-Based Approach against Black-Box Model Inversion
Attacks", ICLR 2025. Answers leak what they tell of a sample beyond its class: the conditional mutual
information ``I(X; answer | class)``, the mean divergence between the answer to a sample and the mean answer to
its class. For each query

1. a label y is drawn from the scores,
2. the scores p move towards the mean answer of y, as near as they get within L1 distance ``epsilon H(p)`` of p.

Threat model: an adversary who sees scores, and asks as often as the budget allows; one who has the weights is
not hindered.

Fidelity notes (paper / here). The paper's own code was not at hand; this follows a summary of the method: draw
a label, move towards the class mean, L1 budget epsilon times entropy, water-filling, and the constants below.
- Constants: epsilon 0.35 and temperature 0.1 are the paper's for CelebA, 0.5 and 0.1 for FaceScrub. That the
  temperature is the one of the drawn label, ``p^(1/T)``, is a reading. So is the natural logarithm in the
  entropy.
- Divergence: the direction of the divergence to the class mean is not said. It makes no difference
  (`filling.filled`).
- Class means: over the samples that the training kept aside, of their true labels. ``grouping="predicted"``
  takes the labels that the target gives. A class without samples gets the mean weighted by its own scores; that
  is an addition.
- Randomness: in the paper a query asked again may get another label drawn. Here the draw is fixed by a secret
  key and the sample, so asking again tells nothing; ``keyed=False`` draws at each query.
- Accuracy is not kept by construction: a sample of much doubt may be given another label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_defense_ssd.filling import filled
from micore.contracts import Config, Defense, Fitting, Samples
from micore.errors import DataError, ModelError
from micore.kit.keyed_noise import KeyedNoise

FIT_BATCH = 256
SMALLEST_SHARE = 1e-6
"""Of equal scores mixed into each class mean: a mean of 0 makes divergences infinite."""


class StealthyShieldConfig(Config):
    """Settings of the defense."""

    epsilon: float = Field(
        0.35,
        gt=0,
        le=100,
        description="L1 distance for each nat of a sample's entropy; paper: 0.35 CelebA, 0.5 FaceScrub",
    )
    temperature: float = Field(
        0.1, gt=0, le=100, description="of the label that is drawn; paper: 0.1; small: nearly always the most likely"
    )
    grouping: Literal["true", "predicted"] = Field("true", description="which labels of the reference make the means")
    keyed: bool = Field(
        True, description="the same draw whenever a sample is asked; false: new at each query, as in the paper"
    )
    levels: int = Field(
        256, ge=2, le=256, description="steps between 0 and 1 to tell samples apart; fewer: more samples share a draw"
    )


class StealthyShield(Defense):
    """Move each answer towards the mean answer of a class that is drawn."""

    Config: ClassVar[type[Config]] = StealthyShieldConfig
    config: StealthyShieldConfig

    def __init__(self, config: StealthyShieldConfig) -> None:
        super().__init__(config)
        self._noise = KeyedNoise(fresh=not config.keyed, levels=config.levels)
        self._means: Tensor | None = None
        self._facts: dict[str, Any] = {}

    def fit(self, fitting: Fitting) -> None:
        """Measure the mean answer of each class on the reference, and draw the key.

        Raises: DataError when the reference is empty or unlabelled.
        """
        scores, labels = _reference_answers(fitting)
        labels = scores.argmax(dim=1) if self.config.grouping == "predicted" else labels
        self._means = class_means(scores, labels)
        self._noise.draw_key()
        missing = fitting.n_classes - len(labels.unique())
        self._facts = {
            "reference_samples": len(scores), "reference_is_fresh": fitting.reference_is_fresh,
            "classes_without_reference": missing,
        }  # fmt: skip

    def state(self) -> Mapping[str, Tensor]:
        """Return the class means (K, K) and the key."""
        return {} if self._means is None else {"means": self._means, **self._noise.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take them back.

        Raises: ModelError when they are not there.
        """
        means = state.get("means")
        if means is None or means.ndim != 2 or means.shape[0] != means.shape[1]:
            raise ModelError("the stored state of ssd holds no class means", hint="`mi defend` the target again")
        self._means = means
        self._noise.load_state(state)

    def facts(self) -> Mapping[str, Any]:
        """Return what the means were made of."""
        return self._facts

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return the moved scores (N, K).

        Raises: ModelError before it is fitted, and for scores of another number of classes.
        """
        scores = scores if scores.dtype == torch.float64 else scores.float()
        means = self._means_for(scores)
        numbers = self._noise.uniforms(inputs, scores, scores.shape[1]).to(scores.dtype)
        goals = means[drawn_labels(scores, self.config.temperature, numbers)]
        moved = filled(scores, goals, self.config.epsilon * entropy(scores))
        return moved / moved.sum(dim=1, keepdim=True)

    def _means_for(self, scores: Tensor) -> Tensor:
        if self._means is None:
            raise ModelError("ssd has no class means yet", hint="fit the defense, or load its state")
        if len(self._means) != scores.shape[1]:
            raise ModelError(
                f"ssd was fitted to {len(self._means)} classes; the scores have {scores.shape[1]}",
                hint="use it with the target that it was fitted to",
            )
        self._means = self._means.to(scores.device)  # once: a bundle is loaded on the CPU
        return self._means.to(scores.dtype)


def entropy(scores: Tensor) -> Tensor:
    """Return the entropy of each row (N, K), in nats."""
    found: Tensor = torch.special.entr(scores)
    return found.sum(dim=1)


def drawn_labels(scores: Tensor, temperature: float, numbers: Tensor) -> Tensor:
    """Draw a label of each row from ``p^(1/T)``, normalised; numbers: uniform (N, K), turned into Gumbel ones."""
    gumbel = -torch.log(-torch.log(numbers))
    return (scores.log() / temperature + gumbel).argmax(dim=1)


def class_means(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean scores of each class, (K, K), above 0.

    scores: (N, K) of the reference; labels: (N,). A class without samples gets the mean weighted by its own scores.
    """
    n_classes = scores.shape[1]
    members = torch.nn.functional.one_hot(labels, n_classes).to(scores.dtype)
    weights = torch.where(members.any(dim=0), members, scores.clamp(min=torch.finfo(scores.dtype).tiny))
    means = (weights / weights.sum(dim=0)).T @ scores
    means = (1 - SMALLEST_SHARE) * means + SMALLEST_SHARE / n_classes
    return means / means.sum(dim=1, keepdim=True)


def _reference_answers(fitting: Fitting) -> tuple[Tensor, Tensor]:
    """Return the answers to the reference (N, K), float32, and its labels (N,), on the run's device."""
    reference, device = fitting.reference, fitting.runtime.device
    if reference.labels is None or not len(reference):
        raise DataError("ssd needs labelled reference samples", hint="train on data with labels")
    answers = [
        fitting.answer(_placed(reference.take(rows), device)).float()
        for rows in torch.arange(len(reference)).split(FIT_BATCH)
    ]
    return torch.cat(answers), reference.labels.to(device)


def _placed(samples: Samples, device: torch.device) -> Samples:
    return samples.to(device) if isinstance(samples, Tensor) else samples
