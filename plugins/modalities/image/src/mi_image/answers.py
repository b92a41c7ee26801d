"""What a target says of the adversary's public images, asked once: soft labels and mean features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from micore.kit.features import features_and_logits
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["labels_and_mean_features", "soft_labels"]

BATCH = 256
Answer = TypeVar("Answer")


def soft_labels(target: Target, images: Tensor, runtime: Runtime) -> Tensor:
    """Return softmax(T(x)) of public images (N, C, H, W): (N, K), float32. One query each, white-box access."""
    return torch.cat(_asked(lambda batch: _probabilities(target.module(batch)), images, runtime))


def labels_and_mean_features(target: Target, images: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return `soft_labels` (N, K) and the mean of the features before the last linear layer, (F,); one query each.

    Raises: ModelError for a target without a linear layer.
    """

    def ask(batch: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = features_and_logits(target.module, batch)
        return _probabilities(logits), features.float().flatten(1).sum(dim=0)

    answers = _asked(ask, images, runtime)
    labels, sums = zip(*answers, strict=True)
    return torch.cat(labels), torch.stack(sums).sum(dim=0) / len(images)


def _probabilities(logits: Tensor) -> Tensor:
    return logits.float().softmax(dim=1)


@torch.no_grad()
def _asked(ask: Callable[[Tensor], Answer], images: Tensor, runtime: Runtime) -> list[Answer]:
    answers = []
    with runtime.progress.track("asking the target about public images", len(images)) as report:
        for start in range(0, len(images), BATCH):
            answers.append(ask(images[start : start + BATCH]))
            report(min(start + BATCH, len(images)))
    return answers
