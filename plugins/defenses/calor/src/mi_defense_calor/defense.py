"""Low-rank head and confidence adaptation.

Yu, Qiu, Fang, Chen, Yu, Wang, Xia, Xu: "CALoR: Towards Comprehensive Model Inversion Defense"
(arXiv:2410.05814, version 1; version 4 is "Rank Matters: Understanding and Defending Model Inversion Attacks
via Low-Rank Feature Filtering" and keeps the low-rank part).

The classification layer becomes BatchNorm, Linear to ``rank`` values, Tanh, Linear to the classes: the features
that reach the answer have a low rank, and the tanh flattens the gradient where it saturates. In the last
epochs the loss is

    L_CA = mean(alpha p_y^gamma log p_y)

whose minimum for one sample is at p_y = exp(-1/gamma), below 1. An inversion that drives the confidence to 1
leaves what private samples look like.

Threat model: white-box, and adversaries who follow confidences.

Fidelity notes (paper / authors' code / here)
- Version 1 of the paper is implemented. The optional label smoothing of the authors' loss is left out (their
  default is 0), and of the activations that they try only tanh is here.
- Second phase: the authors train 5 more epochs with a new SGD of step size 2e-5 and lighter augmentation, from the
  trained low-rank network. Here it is the last share of the same training, with its kind of optimiser and its
  augmentation. The optimiser's memory is emptied and its schedule begins anew: the gradients of this loss are
  so much smaller that Adam, with its averages of the earlier ones, would hardly move.
- Rank: the authors' code has 10 as its default, their published run 50 for hundreds of classes, and they try 10
  to 500. Here 10: with few classes more would be no bottleneck.
- gamma: 4 is the default of the authors' code, 8 that of their published run, which is taken here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from micore.contracts import Config, Defense, Fitting
from micore.errors import ConfigError, ModelError
from micore.kit.features import last_linear
from micore.kit.layers import replace_layer
from micore.kit.training import Trainer, TrainingBatch, predict


class LowRankConfidenceConfig(Config):
    """Settings of the defense."""

    rank: int = Field(10, ge=1, description="values that reach the classifier; authors: 10, 50 published, up to 500")
    gamma: float = Field(
        8.0, gt=0, description="the best confidence is exp(-1/gamma); authors: 4, and 8 in the published run"
    )
    alpha: float = Field(0.25, gt=0, description="factor of the confidence loss; authors: 0.25")
    adaptation: float = Field(
        0.2, gt=0, lt=1, description="share of the epochs, at the end, with the confidence loss; this package's choice"
    )
    restart: float = Field(
        0.3, gt=0, le=1,
        description="highest step size of the second phase, as a share of the training's; this package's choice",
    )  # fmt: skip


class LowRankConfidence(Defense):
    """Put a low-rank head on the network, and train confidences to be best below 1."""

    Config: ClassVar[type[Config]] = LowRankConfidenceConfig
    config: LowRankConfidenceConfig

    def __init__(self, config: LowRankConfidenceConfig) -> None:
        super().__init__(config)
        self._trainer: Trainer | None = None
        self._confidence: float | None = None

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Replace the classification layer by the low-rank head."""
        head = last_linear(module)
        if self.config.rank >= head.in_features:
            raise ModelError(
                f"calor: rank={self.config.rank} is no bottleneck for the {head.in_features} features of this model",
                hint="a lower rank",
            )
        return replace_layer(module, head, low_rank_head(head, self.config.rank))

    def adapt_training(self, trainer: Trainer) -> None:
        """Refuse a training that is too short for both phases."""
        if trainer.config.epochs < 2:
            raise ConfigError("calor trains in two phases, which needs at least 2 epochs", hint="-p epochs=30")
        self._trainer = trainer

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss so far, and in the second phase the confidence loss in its place."""
        if not self.is_complete(batch.epoch, batch.epochs):
            return task_loss()
        if self._trainer is not None and batch.epoch == self._first(batch.epochs):
            restart(self._trainer, self.config.restart, batch.epochs - batch.epoch)
            self._trainer = None
        return confidence_loss(batch.logits, batch.labels, gamma=self.config.gamma, alpha=self.config.alpha).mean()

    def is_complete(self, epoch: int, epochs: int) -> bool:
        """Tell whether this epoch is one of the second phase."""
        return epoch >= self._first(epochs)

    def _first(self, epochs: int) -> int:
        """Return the first epoch of the second phase, which is at least one and never all."""
        return epochs - min(max(1, round(self.config.adaptation * epochs)), epochs - 1)

    def fit(self, fitting: Fitting) -> None:
        """Measure the confidence that was reached; nothing is fitted."""
        reference = fitting.reference
        logits = predict(fitting.module, reference.take, len(reference), fitting.adapter, fitting.runtime)
        if reference.labels is not None:
            scores = logits.double().softmax(dim=1)
            self._confidence = float(scores.gather(1, reference.labels.cpu()[:, None]).median())

    def facts(self) -> Mapping[str, Any]:
        """Tell the confidence that the loss asks for, and the median that private samples got."""
        wanted = {"best_confidence": round(math.exp(-1 / self.config.gamma), 4)}
        return wanted if self._confidence is None else wanted | {"median_confidence": round(self._confidence, 4)}


def restart(trainer: Trainer, share: float, epochs: int) -> None:
    """Empty the optimiser's memory, and begin its schedule anew at a share of the step size, for so many epochs."""
    trainer.optimizer.state.clear()
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = share * group.get("initial_lr", group["lr"])
    if trainer.config.schedule == "cosine":
        steps = epochs * trainer.steps_per_epoch
        trainer.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, steps)
    else:
        trainer.scheduler = trainer.make_scheduler()


def low_rank_head(head: nn.Linear, rank: int) -> nn.Sequential:
    """Return BatchNorm, Linear, Tanh, Linear between the features and classes of a classification layer."""
    place: dict[str, Any] = {"device": head.weight.device, "dtype": head.weight.dtype}
    return nn.Sequential(
        nn.BatchNorm1d(head.in_features, **place),
        nn.Linear(head.in_features, rank, **place),
        nn.Tanh(),
        nn.Linear(rank, head.out_features, **place),
    )


def confidence_loss(logits: Tensor, labels: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """Return ``alpha p_y^gamma log p_y`` of each row, (B,), at least ``-alpha / (gamma e)``."""
    widened = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_confidence = functional.log_softmax(widened, dim=1).gather(1, labels[:, None]).squeeze(1)
    return alpha * (gamma * log_confidence).exp() * log_confidence
