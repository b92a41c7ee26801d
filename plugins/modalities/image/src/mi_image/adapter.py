"""Fitting images to what a model takes, differentiably."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from micore.errors import ModelError
from micore.inputs import InputSpec

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class ImageAdapter:
    """Convert images (N, C, H, W) in [0, 1] to a model's input: channels, size, then normalisation.

    Grey is repeated to colour, colour becomes luminance; another height or width is reached by antialiased
    bilinear resizing. Device and dtype stay those of the images.

    Raises: ModelError when the spec is not that of an image model, or the images have neither 1 nor 3
    channels.
    """

    spec: InputSpec

    def __post_init__(self) -> None:
        shape = self.spec.shape
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise ModelError(f"an image model takes (1 or 3, height, width), not inputs of shape {shape}")
        if len(self.spec.mean) not in (0, 1, shape[0]):
            raise ModelError(f"input spec: {len(self.spec.mean)} means for {shape[0]} channels")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the input (N, *spec.shape) of the model."""
        channels, height, width = self.spec.shape
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ModelError(f"images must be (N, 1 or 3, height, width), not {tuple(images.shape)}")
        return self._normalise(_fit_size(_fit_channels(images, channels), height, width))

    def _normalise(self, images: Tensor) -> Tensor:
        if not self.spec.mean:
            return images
        return (images - _per_channel(self.spec.mean, images)) / _per_channel(self.spec.std, images)


def _per_channel(values: tuple[float, ...], images: Tensor) -> Tensor | float:
    if len(set(values)) == 1:  # a plain number needs no copy to the device
        return values[0]
    return torch.tensor(values, device=images.device, dtype=images.dtype).view(1, -1, 1, 1)


def _fit_channels(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.unbind(1)
    return (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue).unsqueeze(1)


def _fit_size(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    return functional.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)


def luminance(images: Tensor) -> Tensor:
    """Return images (N, 1 or 3, H, W) as grey (N, 1, H, W)."""
    return _fit_channels(images, 1)
