"""``mi prior train``: from a data set's public split to a prior's bundle. A kind of prior is one row of `KINDS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mi_image.prior_bundle import STYLEGAN2, stylegan_bundle
from mi_image.stylegan2_training import StyleGanSettings, require_trainable, train_stylegan
from micore.artifacts import Bundle
from micore.configs import make_config
from micore.contracts import Config, Dataset
from micore.data import DataRequest, describe
from micore.errors import DataError, UsageError
from micore.files import digest
from micore.home import cache
from micore.registry import Registry
from micore.runtime import Checkpoints, Runtime

__all__ = ["KINDS", "PriorKind", "StyleGanConfig", "train_prior"]

_DEFAULT = StyleGanSettings()


class StyleGanConfig(Config):
    """`StyleGanSettings` as a user sets them, with their ranges."""

    latent_dim: int = Field(_DEFAULT.latent_dim, ge=1, description="length of z")
    w_dim: int = Field(_DEFAULT.w_dim, ge=1, description="length of w")
    mapping_layers: int = Field(_DEFAULT.mapping_layers, ge=1, description="fully connected layers from z to w")
    channel_base: int | None = Field(
        _DEFAULT.channel_base, ge=1, description="a layer at r px has this / r channels; none: 16 times the size"
    )
    channel_max: int = Field(_DEFAULT.channel_max, ge=1, description="but no layer has more")
    iterations: int = Field(_DEFAULT.iterations, ge=1, description="generator steps")
    batch_size: int = Field(_DEFAULT.batch_size, ge=2, description="images of one step")
    learning_rate: float = Field(_DEFAULT.learning_rate, gt=0, description="of both networks' Adam")
    r1_weight: float | None = Field(
        _DEFAULT.r1_weight, ge=0, description="gamma of R1; none: 0.0002 size^2 / batch_size, as in the release"
    )
    r1_interval: int = Field(_DEFAULT.r1_interval, ge=1, description="steps from one R1 penalty to the next")
    ada_target: float = Field(
        _DEFAULT.ada_target, ge=-1, le=1, description="mean sign of real logits at which augmentation is kept"
    )
    ada_images: int = Field(
        _DEFAULT.ada_images, ge=0, description="images in which augmentation can grow from none to all; 0: none ever"
    )
    style_mixing: float = Field(_DEFAULT.style_mixing, ge=0, le=1, description="share of images of two styles")
    mirror: float | None = Field(
        _DEFAULT.mirror, ge=0, le=1, description="share of mirrored images; none: half in colour, none in grey"
    )
    ema_images: int = Field(_DEFAULT.ema_images, ge=1, description="half-life of the averaged generator, in images")

    def settings(self) -> StyleGanSettings:
        """Return the settings."""
        return StyleGanSettings(**self.model_dump())


@dataclass(frozen=True)
class PriorKind:
    """How one kind of prior is trained.

    config: its settings. require: refuses images that do not fit. train: images, config and runtime to plain data;
    loads and offers the runtime's checkpoint. bundle: that data, what is known of the images, how it was trained,
    and the seed, to a bundle.
    """

    config: type[Config]
    require: Callable[[Tensor], None]
    train: Callable[[Tensor, Any, Runtime], Mapping[str, Any]]
    bundle: Callable[..., Bundle]


def _train_stylegan(images: Tensor, config: StyleGanConfig, runtime: Runtime) -> Mapping[str, Any]:
    return train_stylegan(images, config.settings(), runtime, runtime.checkpoints.load())


KINDS: Mapping[str, PriorKind] = {
    STYLEGAN2: PriorKind(StyleGanConfig, require_trainable, _train_stylegan, stylegan_bundle)
}


def train_prior(
    registry: Registry, runtime: Runtime, *, data: DataRequest, kind: str, values: Mapping[str, Any], output: Path
) -> Bundle:
    """Train a prior on the public images of a data set and write it to ``output``.

    A killed training goes on when it is started again with the same data and settings.

    Raises: UsageError for an unknown kind; ConfigError for a setting; DataError for the data; StorageError.
    """
    if kind not in KINDS:
        raise UsageError(f"no prior of kind {kind!r} can be trained", hint="one of " + ", ".join(KINDS))
    chosen = KINDS[kind]
    config = make_config(chosen.config, values, f"prior {kind!r}")
    dataset = data.open(registry)
    images = _public_images(dataset)
    chosen.require(images)
    started = time.monotonic()
    runtime = runtime.with_checkpoints(_checkpoints(runtime, dataset, kind, config))
    state = chosen.train(images.to(runtime.device), config, runtime)
    training = {"kind": kind, **config.model_dump(), "seconds": round(time.monotonic() - started, 2)}
    bundle = chosen.bundle(state, data=describe(data, dataset), training=training, seed=runtime.seed)
    bundle.save(output)
    runtime.checkpoints.clear()
    return bundle


def _public_images(dataset: Dataset) -> Tensor:
    if dataset.modality != "image":
        raise DataError(f"data set {dataset.name!r} holds samples of modality {dataset.modality!r}, not images")
    public = dataset.split("public")
    if not len(public):
        raise DataError(f"data set {dataset.name!r} has no public images to train a prior on")
    images: Tensor = public.take(torch.arange(len(public)))
    return images


def _checkpoints(runtime: Runtime, dataset: Dataset, kind: str, config: Config) -> Checkpoints:
    settings = [runtime.seed, runtime.precision, runtime.compiled, runtime.device.type, kind]
    key = digest(dataset.fingerprint, config.model_dump(), settings)
    return Checkpoints(cache() / "training" / f"prior-{key}.safetensors", runtime.checkpoints.interval_s)
