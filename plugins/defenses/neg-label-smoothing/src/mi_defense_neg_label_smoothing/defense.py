"""Negative label smoothing.

Struppek, Hintersdorf, Kersting: "Be Careful What You Smooth For: Label Smoothing Can Be a Privacy Shield
but Also a Catalyst for Model Inversion Attacks", ICLR 2024 (arXiv:2310.06549).

With a smoothing factor ``alpha < 0`` the target distribution is ``(1 - alpha) onehot(y) + alpha / K``, so

    loss = (1 - alpha) * (-log p_y) + alpha * mean_k(-log p_k)

and the model is pushed to put extreme distrust in all other classes, which takes the useful direction out
of the gradients that an inversion follows.

Fidelity notes (paper / authors' code / here)
- Schedule: the paper trains with plain cross-entropy first and then lowers the factor linearly. The
  authors' code for 100 epochs is 0 up to epoch 50, ``alpha * (epoch + 1 - 50) / 50`` up to epoch 75 and
  then the full ``alpha``: it jumps from half to full strength. Here the same two points are fractions of
  the training (``warm_up``, ``full_at``) and the ramp is linear between them, without the jump;
  ``schedule="authors"`` keeps the jump, ``schedule="none"`` uses the full factor from the first step.
- The loss has no lower bound for alpha < 0. The authors do nothing about it; here log-probabilities in the
  mean over classes are clamped at -50, which ends the pull of a class that is ruled out already.
- Confidences of such a model are not calibrated: do not use it where they must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from micore.contracts import Config, Defense
from micore.kit.losses import label_smoothed
from micore.kit.training import TrainingBatch


class NegativeLabelSmoothingConfig(Config):
    """Settings of the defense."""

    alpha: float = Field(-0.05, ge=-1, lt=0, description="smoothing factor; paper: -0.05 for 1000 and 530 classes")
    schedule: Literal["linear", "authors", "none"] = Field("linear", description="how the factor is reached")
    warm_up: float = Field(
        0.5, ge=0, lt=1, description="share of the epochs with plain cross-entropy (authors: 50 of 100)"
    )
    full_at: float = Field(
        0.75, gt=0, le=1, description="share of the epochs after which the factor is full (authors: 75 of 100)"
    )


class NegativeLabelSmoothing(Defense):
    """Replace the cross-entropy by the negatively smoothed one."""

    Config: ClassVar[type[Config]] = NegativeLabelSmoothingConfig
    config: NegativeLabelSmoothingConfig
    per_sample_loss: ClassVar[bool] = True
    """The loss is a mean over samples, none of which acts on another's term."""

    def is_complete(self, epoch: int, epochs: int) -> bool:
        """Tell whether the factor is full."""
        return smoothing_at(self.config, epoch, epochs) == self.config.alpha

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the smoothed loss of the batch; the loss so far is not computed."""
        alpha = smoothing_at(self.config, batch.epoch, batch.epochs)
        return label_smoothed(batch.logits, batch.labels, smoothing=alpha).mean()


def smoothing_at(config: NegativeLabelSmoothingConfig, epoch: int, epochs: int) -> float:
    """Return the smoothing factor of an epoch, counted from 0."""
    if config.schedule == "none":
        return config.alpha
    start, full = config.warm_up * epochs, config.full_at * epochs
    if epoch < start:
        return 0.0
    if epoch >= full:
        return config.alpha
    end = epochs if config.schedule == "authors" else full
    return config.alpha * min(1.0, (epoch + 1 - start) / (end - start))
