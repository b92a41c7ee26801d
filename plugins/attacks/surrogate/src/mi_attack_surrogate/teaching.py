"""What the target is asked, and what students learn of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mi_attack_surrogate.config import SurrogateConfig
from mi_image.public_queries import asked
from mi_image.students import require_teachable, student_states
from mi_image.surrogates import surrogate_states
from micore.contracts import Split
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access

__all__ = ["asked_images", "mixed", "taught"]


def asked_images(config: SurrogateConfig, public: Split | None, runtime: Runtime) -> Tensor:
    """Return the images that the target is asked about: public ones, views, mixtures; (N, C, H, W) in [0, 1].

    Raises: DataError without public images; MiError for images that students cannot look at.
    """
    images = config.public_images(public, runtime, "surrogate")
    require_teachable(images)
    n_public = 0 if public is None else len(public)
    return torch.cat([images, mixed(images, config.mixtures * n_public, runtime)])


def mixed(images: Tensor, n: int, runtime: Runtime) -> Tensor:
    """Return n mixtures of two of the images (N, C, H, W) in random shares: (n, C, H, W)."""
    rng = runtime.rng("surrogate", "mixtures")
    first, second = (images[rng.integers(len(images), (n,))] for _ in range(2))
    return torch.lerp(first, second, rng.uniform((n, 1, 1, 1)))


def taught(
    config: SurrogateConfig, target: Target, images: Tensor, stages: Stages, runtime: Runtime
) -> Mapping[str, Any]:
    """Ask the target about images (N, C, H, W), once each, and train the students; plain data to restore them."""
    scored = target.access >= Access.SCORES and config.answers == "best"
    query = target.scores if scored else target.labels
    answers = stages.run("answers", lambda stage: {"answers": asked(query, images, stage)})["answers"]
    answers = answers.to(runtime.device)

    def learn(stage: Runtime) -> Mapping[str, Any]:
        if scored:
            return student_states(images, _whole(answers), config.student_settings(), stage)
        settings, views = config.surrogate_settings(len(images)), config.views_learned(images.shape[1])
        return surrogate_states(images, answers, target.n_classes, views, settings, stage)

    return stages.run("students", learn)


def _whole(scores: Tensor) -> Tensor:
    """Return scores (N, K) that sum to 1, whatever an interface left out; nothing at all says nothing."""
    total = scores.sum(dim=1, keepdim=True)
    return torch.where(total > 0, scores / total.clamp_min(torch.finfo(scores.dtype).tiny), 1 / scores.shape[1])
