"""Defensive distillation: the released model learns the soft answers of a teacher.

Papernot, McDaniel, Wu, Jha, Swami: "Distillation as a Defense to Adversarial Perturbations against Deep Neural
Networks", S&P 2016 (arXiv:1511.04508), section IV: a teacher and a student of one architecture; the teacher is
trained on the labels with a softmax at temperature T, the student on the teacher's softmax at T; at T = 1 it is used.

Threat: an inversion that follows the gradient of confidences, which saturate at T = 1. With ``labels_from="public"``
the released model never sees a private sample: what it knows of the private classes is what the teacher says of
public ones.

Fidelity notes (paper / here)
- Teacher: trained with the settings, augmentation and number of epochs of the student. Both losses are scaled so
  that gradients keep the size that they have at T = 1 (paper: no scaling, another learning rate).
- Temperature: 20 in the paper (MNIST; 1 to 100 tried). A teacher at 1 gives the distillation of Hinton et al.
  (arXiv:1503.02531), as does ``hard_weight`` above 0.
- The student is asked at T = 1, as in the paper.
- Teaching on public samples is this package's choice, in the manner of PATE (arXiv:1610.05755) without its noise:
  it has no formal guarantee.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_defense_distill.teacher import PublicSplit, distillation, frozen, renewed, trained
from micore.contracts import Config, Defense, Fitting, Split
from micore.errors import ConfigError
from micore.kit.training import Trainer, TrainingBatch, predict


class DistillationConfig(Config):
    """Settings of the defense."""

    temperature: float = Field(20.0, ge=1, le=1000, description="T, of both in the student's loss; paper: 20 (MNIST)")
    teacher_temperature: float | None = Field(
        None, ge=1, le=1000, description="at which the teacher is trained; empty: the same (paper); 1: as usual"
    )
    hard_weight: float = Field(
        0.0, ge=0, lt=1, description="share of the labels' cross-entropy in the student's loss; paper: 0"
    )
    labels_from: Literal["private", "public"] = Field(
        "private", description="samples that the student learns from; public: it never sees a private one"
    )
    teacher_start: Literal["fresh", "same"] = Field(
        "fresh", description="the teacher's first weights: drawn anew, or the student's, such as pre-trained ones"
    )


class Distillation(Defense):
    """Train a teacher first, then the released model on its answers."""

    Config: ClassVar[type[Config]] = DistillationConfig
    config: DistillationConfig

    def __init__(self, config: DistillationConfig) -> None:
        super().__init__(config)
        self._trainer: Trainer | None = None
        self._private: Split | None = None
        self._teacher: nn.Module | None = None
        self._agreement: float | None = None

    def adapt_training(self, trainer: Trainer) -> None:
        """Let the student learn from public samples, if it should.

        Raises: ConfigError when there are none.
        """
        self._trainer, self._private = trainer, trainer.split
        if self.config.labels_from == "private":
            return
        if trainer.public is None or len(trainer.public) == 0:
            raise ConfigError(
                "defense 'distill': labels_from=public, but the data set has no labelled samples of other classes",
                hint="labels_from=private",
            )
        trainer.split = PublicSplit(trainer.public)
        trainer.steps_per_epoch = max(1, -(-len(trainer.split) // trainer.config.batch_size))
        trainer.scheduler = trainer.make_scheduler()

    def begin(self, trainer: Trainer) -> None:
        """Train the teacher on the private samples.

        Raises: ModelError when its loss stops being finite.
        """
        start = copy.deepcopy(trainer.module) if self.config.teacher_start == "same" else renewed(trainer.module)
        private = trainer.split if self._private is None else self._private
        self._teach(trainer, trained(start, private, trainer, self._trained_at))

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the distance to the teacher's answers; the loss so far where no teacher was trained."""
        if self._teacher is None:
            return task_loss()
        with torch.no_grad():
            given = self._teacher(batch.inputs)
        weight = self.config.hard_weight
        soft = distillation(batch.logits, given, self.config.temperature, self._trained_at)
        return soft if weight == 0 else (1 - weight) * soft + weight * task_loss()

    def training_state(self) -> Mapping[str, Any]:
        """Return the teacher."""
        return {} if self._teacher is None else {"teacher": self._teacher.state_dict()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take the teacher back."""
        if self._trainer is not None:
            teacher = copy.deepcopy(self._trainer.module)
            teacher.load_state_dict(state["teacher"])
            self._teach(self._trainer, frozen(teacher))

    def fit(self, fitting: Fitting) -> None:
        """Ask how often the student answers as its teacher, who is then let go."""
        if self._teacher is not None:
            asked = fitting.reference
            student, teacher = (
                predict(module, asked.take, len(asked), fitting.adapter, fitting.runtime).argmax(dim=1)
                for module in (fitting.module, self._teacher)
            )
            self._agreement = float((student == teacher).double().mean())
        self._teacher = self._trainer = self._private = None

    def facts(self) -> Mapping[str, Any]:
        """Return the share of the samples it was fitted on for which the student answers as its teacher."""
        return {} if self._agreement is None else {"agreement_with_teacher": self._agreement}

    @property
    def _trained_at(self) -> float:
        return self.config.teacher_temperature or self.config.temperature

    def _teach(self, trainer: Trainer, teacher: nn.Module) -> None:
        self._teacher = teacher
        if isinstance(trainer.split, PublicSplit):
            part = trainer.split
            part.labels = predict(teacher, part.take, len(part), trainer.adapter, trainer.runtime).argmax(dim=1)
