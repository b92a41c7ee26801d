"""Students: small networks that know nothing but the samples that they are shown."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mi_evaluator_knowledge.lessons import Lessons
from micore.answers import is_trained
from micore.contracts import EvaluatorModel
from micore.errors import ModelError
from micore.kit.training import Trainer, TrainingConfig, predict
from micore.runtime import Checkpoints, Progress, Runtime


def taught(
    judge: EvaluatorModel, lessons: Lessons, classes: Tensor, plan: TrainingConfig, seed: int, runtime: Runtime
) -> Trainer:
    """Train an untrained network of the judge's architecture to the last step; nothing is chosen by a test.

    classes: labels by their place in the student's output. ``seed`` changes parameters, order and augmentation.

    Raises: ModelError when the architecture comes with its weights, or the training diverges.
    """
    runtime = replace(runtime, progress=Progress(), checkpoints=Checkpoints(), precision="fp32")
    module = untrained(judge, len(classes), seed, runtime)
    trainer = Trainer(
        module, Lessons(lessons.samples, places(lessons.labels, classes), lessons.modality), config=plan,
        adapter=judge.adapter, augment=lessons.modality.augment, runtime=runtime, purpose=f"knowledge-{seed}",
        n_classes=len(classes),
    )  # fmt: skip
    trainer.fit()
    return trainer


def untrained(judge: EvaluatorModel, n_classes: int, seed: int, runtime: Runtime) -> torch.nn.Module:
    """Build a student.

    Raises: ModelError when the architecture comes with its weights.
    """
    name = judge.bundle.card.model.name
    if judge.fresh is None:
        raise ModelError(f"no untrained network of architecture {name!r} can be built")
    with runtime.seeded("knowledge", "parameters", seed):
        module = judge.fresh(n_classes)
    if is_trained(module):
        raise ModelError(
            f"architecture {name!r} comes with its weights: a student of it knows more than it was shown",
            hint="give another --evaluator-model",
        )
    return module


def places(labels: Tensor, classes: Tensor) -> Tensor:
    """Return the place of each label among sorted classes."""
    return torch.searchsorted(classes, labels)


def plan_of(n: int, *, steps: int, batch_size: int, learning_rate: float, augment: str) -> TrainingConfig:
    """Return a training of about so many steps, whatever the number of samples."""
    batches = max(1, -(-n // batch_size))
    return TrainingConfig.model_validate({
        "epochs": max(1, -(-steps // batches)), "batch_size": batch_size, "learning_rate": learning_rate,
        "augment": augment,
    })  # fmt: skip


def hits(trainer: Trainer, test: Lessons, classes: Tensor) -> Tensor:
    """Return whether the student puts the class of each sample first, float64 (N,)."""
    logits = predict(trainer.module, test.take, len(test), trainer.adapter, trainer.runtime)
    return (logits.argmax(dim=1) == places(test.labels, classes)).double()
