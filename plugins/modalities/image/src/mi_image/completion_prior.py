"""The completion network as attacks on instances prepare it: settings, training, what it costs the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_image.corruptions import EvidenceKind, find_corruption
from mi_image.inpainting import require_completable
from mi_image.inpainting_training import Features, InpaintingSettings, inpainting_state
from micore.contracts import Config, Prepared, Split
from micore.errors import ConfigError, DataError
from micore.kit.features import features_and_logits
from micore.kit.generator_training import as_float
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime
from micore.target import CountedModule, Target
from micore.threat import Spending

__all__ = [
    "BY_PIXELS", "COMPLETION_FIELDS", "SMALL", "SMOKE", "CompletionConfig", "completion_cost", "prepare_completion",
]  # fmt: skip


class CompletionConfig(Config):
    """Settings of the completion network; the defaults are SecretGen's code at 64 px."""

    evidence: EvidenceKind = Field("centre", description="what hides the images: a kind of --evidence")
    latent_dim: int = Field(100, ge=1, description="dimensions of the latent space (code: 100)")
    width: int = Field(32, ge=1, description="channels of the completion network's first stage (code: 32)")
    critic_width: int = Field(64, ge=1, description="channels of the critics' first stage (code: 64)")
    iterations: int = Field(62_500, ge=1, description="steps of generator and critics (code: 100 epochs of 40,000)")
    gan_batch_size: int = Field(64, ge=2, description="images of one training step (code: 64)")
    gan_learning_rate: float = Field(4e-3, gt=0, description="of the three Adams (code: 0.004)")
    realism_weight: float = Field(0.5, ge=0, description="of the critics in the generator's loss (code: 0.5)")
    diversity_weight: float = Field(0.5, ge=0, description="of the difference between two completions (code: 0.5)")
    evidence_weight: float = Field(
        0.0, ge=0, description="of the difference to what the evidence shows, summed over pixels (SecretGen 0, GMI 1)"
    )
    diversity: Literal["target", "pixels"] = Field(
        "target", description="what tells completions apart: the target's features, or the pixels"
    )


COMPLETION_FIELDS = frozenset(CompletionConfig.model_fields)

SMALL: Mapping[str, Any] = {
    "latent_dim": 32, "width": 8, "critic_width": 16, "iterations": 1000, "gan_batch_size": 32,
    "gan_learning_rate": 2e-3,
}  # fmt: skip
"""Values of ``default`` presets: a thousand small grey pictures, a minute on one core."""

BY_PIXELS: Mapping[str, Any] = {"diversity": "pixels", "diversity_weight": 10.0}
"""Completions told apart by pixels: a small network that is to differ in the target's features learns to fool it."""

SMOKE: Mapping[str, Any] = {
    "latent_dim": 8, "width": 4, "critic_width": 8, "iterations": 40, "gan_batch_size": 16, "gan_learning_rate": 4e-3,
}  # fmt: skip
"""Values of ``smoke`` presets."""


def prepare_completion(
    name: str, config: CompletionConfig, target: Target, public: Split | None, runtime: Runtime
) -> Prepared:
    """Train the network on public images hidden as the evidence is; without the target's features it is shared.

    name: of the attack, for messages. Returns what `restore_inpainting` takes, and ``mean``: the mean colour (C,) of
    the public images.

    Raises: DataError without public images, MiError for images of another size, ConfigError when nothing would tie
    completions to the evidence; all before the target is asked.
    """
    if public is None or len(public) == 0:
        raise DataError(f"{name} needs public images")
    corruption = find_corruption(config.evidence)
    if corruption.soften is not None and config.evidence_weight == 0:
        raise ConfigError(
            f"evidence {config.evidence!r} shows no true pixel: at evidence_weight 0 nothing ties completions to it",
            hint="-p evidence_weight=0.1",
        )
    images = public.take(torch.arange(len(public))).to(runtime.device)
    require_completable(images)
    settings = _settings(config)
    if config.diversity == "target" and config.diversity_weight:
        features = _target_features(target.module)
        state = inpainting_state(images, corruption, features, settings, runtime)
    else:
        identity = {"settings": asdict(settings), "evidence": config.evidence, "images": tensor_digest(images)}

        def work(stage: Runtime) -> Mapping[str, Any]:
            return inpainting_state(images, corruption, _pixels, settings, stage)

        state = shared("completion", identity, work, runtime)
    return Prepared(state={**state, "mean": as_float(images).mean(dim=(0, 2, 3))})


def completion_cost(config: CompletionConfig) -> Spending:
    """Count what the training asks of the target: two completions of each image of each generator step, or nothing."""
    asked = config.diversity == "target" and config.diversity_weight > 0
    completions = 2 * config.gan_batch_size * config.iterations if asked else 0
    return Spending(queries=completions, gradients=completions)


def _settings(config: CompletionConfig) -> InpaintingSettings:
    return InpaintingSettings(
        latent_dim=config.latent_dim, width=config.width, critic_width=config.critic_width,
        iterations=config.iterations, batch_size=config.gan_batch_size, learning_rate=config.gan_learning_rate,
        realism_weight=config.realism_weight, diversity_weight=config.diversity_weight,
        evidence_weight=config.evidence_weight,
    )  # fmt: skip


def _target_features(module: CountedModule) -> Features:
    return lambda images: features_and_logits(module, images)[0]


def _pixels(images: Tensor) -> Tensor:
    return images
