"""Surrogates of a target that gives labels only: classifiers trained on generated images with its labels of them.

Source: Nguyen, Chandrasegaran, Abdollahzadeh, Cheung: "Label-Only Model Inversion Attacks via Knowledge Transfer"
(LOKT, NeurIPS 2023), section 4.2, and the authors' released training script.

Fidelity notes (paper / authors' code / here)
- The authors train DenseNet-121, -161 and -169 from scratch. Here networks of `mi_image.learners` in different
  widths, so that no further package is needed.
- Loss, optimiser and schedule are theirs: half the cross-entropy of the images and half that of random views of them,
  SGD with momentum, a cosine to 0. 200 of their epochs of 30,000 images in batches of 256 are 23,400 steps.
- Images are drawn uniformly with replacement; image and view pass the network in one batch.
- All surrogates are trained in one loop over the same batches, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_image.augment import Augmentation
from mi_image.learners import Learners, build_networks, learner_arguments
from micore.kit.generator_training import as_float
from micore.runtime import Runtime

__all__ = ["SurrogateSettings", "surrogate_states"]


@dataclass(frozen=True, kw_only=True)
class SurrogateSettings:
    """Which surrogates, and how they learn; the numbers of the training are the authors' code.

    network: a name in `mi_image.learners.NETWORKS`; widths: one surrogate for each.
    """

    network: str = "resnet18"
    widths: tuple[int, ...] = (48, 64, 80)
    steps: int = 23_400
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


def surrogate_states(
    images: Tensor, labels: Tensor, n_classes: int, views: Augmentation, settings: SurrogateSettings, runtime: Runtime
) -> Mapping[str, Any]:
    """Train all surrogates; return plain data for `mi_image.students.restore_students`.

    images: (N, C, H, W), float in [0, 1] or uint8; labels: (N,), the target's; both on the runtime's device. Resumes
    bit for bit from ``runtime.checkpoints``.
    """
    arguments = learner_arguments(settings.network, settings.widths, n_classes, images)
    learners = Learners(
        build_networks(arguments, runtime, "surrogates"), runtime, momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )  # fmt: skip
    step = partial(_take_step, learners, images, labels, views, settings)
    learners.run(step, settings.steps, "training surrogates")
    return {"arguments": arguments, "weights": learners.weights()}


def _take_step(
    learners: Learners, images: Tensor, labels: Tensor, views: Augmentation, settings: SurrogateSettings, step: int
) -> None:
    """Learn from drawn images and a random view of each: both halves of the batch weigh alike.

    A batch has a random stream of its own, so that only the step's number is to be kept.
    """
    rng = learners.runtime.rng("surrogates", "batch", step)
    rows = rng.integers(len(images), (settings.batch_size,))
    drawn, wanted = as_float(images[rows]), labels[rows].repeat(2)
    seen = views.apply(drawn, views.draw(rng, settings.batch_size))
    rate = settings.learning_rate * (1 + math.cos(math.pi * step / settings.steps)) / 2
    learners.step(torch.cat([drawn, seen]), lambda logits: functional.cross_entropy(logits, wanted), rate)
