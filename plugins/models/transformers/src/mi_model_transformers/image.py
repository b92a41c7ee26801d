"""Classifiers of images: logits of a checkpoint in the order of the target's classes, of images as it takes them.

An image processor resizes, crops, scales and normalises. What is attacked here are images of the size that the network
takes, so that the first two have nothing to do; the others are one shift and one scale for each channel, which the
target's input spec holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from mi_model_transformers.settings import read_settings, save_it, settings_file
from micore.errors import ModelError
from micore.inputs import InputSpec

PROCESSOR = "image processor"
WHITE = 255.0
"""The largest value of a pixel, before a processor scales it."""


class ImageClassifier(nn.Module):
    """A transformers model that gives logits of classes for normalised images (N, channels, height, width).

    network: a transformers model with ``logits`` of ``pixel_values``; order: the place of each class among its own.
    """

    comes_trained = True

    def __init__(self, network: Any, own_input: InputSpec, order: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.own_input = own_input
        self.order = tuple(order)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        logits: Tensor = self.network(pixel_values=images).logits.float()
        return logits[:, torch.tensor(self.order, device=logits.device)]


def is_image(about: Any) -> bool:
    """Tell whether a checkpoint's configuration is of a network that can classify images, and reads no text."""
    return about.model_type in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES and not hasattr(about, "vocab_size")


def image_settings_file(folder: Path) -> Path:
    """Return the file with the image processor's settings.

    Raises: ModelError when there is none.
    """
    return settings_file(folder, "images", PROCESSOR)


def image_input(folder: Path, about: Any) -> InputSpec:
    """Describe the input of a checkpoint's network, from its image processor's settings.

    Raises: ModelError when they are not there, or not whole.
    """
    path = image_settings_file(folder)
    settings = read_settings(path, "image_processor", PROCESSOR)
    try:
        height, width = _size(settings, about)
        channels = int(getattr(about, "num_channels", None) or len(settings.get("image_mean") or [0, 0, 0]))
        mean, std = _normalisation(settings, channels)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not whole as an image processor's: {error}", hint=save_it(PROCESSOR)) from error
    return InputSpec(shape=(channels, height, width), mean=mean, std=std)


def _size(settings: Mapping[str, Any], about: Any) -> tuple[int, int]:
    """Return height and width of what the network takes: the crop, or the size where nothing is cropped."""
    cropped = settings.get("do_center_crop", False) and settings.get("crop_size")
    size = cropped or settings.get("size") or getattr(about, "image_size", None)
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)


def _normalisation(settings: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std, for pixels from 0 to 1, that do what the processor's scale and normalisation do."""
    white = WHITE * float(settings.get("rescale_factor", 1 / WHITE)) if settings.get("do_rescale", True) else WHITE
    shift = 1.0 if settings.get("do_rescale", True) and settings.get("rescale_offset", False) else 0.0
    normalised = settings.get("do_normalize", True)
    means = _each(settings["image_mean"], channels) if normalised else [0.0] * channels
    stds = _each(settings["image_std"], channels) if normalised else [1.0] * channels
    return tuple((mean + shift) / white for mean in means), tuple(std / white for std in stds)


def _each(values: Any, channels: int) -> list[float]:
    """Return one value for each channel."""
    found = [float(value) for value in (values if isinstance(values, list) else [values] * channels)]
    if len(found) != channels:
        raise ValueError(f"{len(found)} values for {channels} channels")
    return found
