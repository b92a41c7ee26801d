"""Denoising and sharpening of images (B, C, H, W), each for itself.

All filters keep the shape, mirror the image at its border and treat every channel alike; no side may be shorter than
two pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DENOISERS", "gaussian", "median", "non_local_means", "sharpen"]


def median(images: Tensor, strength: float = 1.0) -> Tensor:
    """Blend each pixel with the median of its 3x3 neighbourhood; ``strength`` 1 takes the median alone."""
    height, width = images.shape[-2:]
    padded = _mirrored(images, 1)
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.lerp(images, torch.stack(shifted).median(dim=0).values, strength)


def gaussian(images: Tensor, strength: float = 0.7) -> Tensor:
    """Blur by a Gaussian whose standard deviation is ``strength`` pixels, cut off at three of them."""
    radius = min(math.ceil(3 * strength), *(side - 1 for side in images.shape[-2:]))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / strength).square())
    kernel = kernel / kernel.sum()
    planes = _mirrored(images, radius).flatten(0, 1)[:, None]
    blurred = functional.conv2d(functional.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred.view_as(images)


def non_local_means(images: Tensor, strength: float = 0.1, *, reach: int = 3) -> Tensor:
    """Average pixels whose 3x3 neighbourhoods resemble each other, within ``reach`` pixels.

    ``strength`` h: weights are exp(-d / h^2) of the mean squared difference d of two neighbourhoods, over all channels.
    Source: Buades, Coll, Morel, "A non-local algorithm for image denoising" (CVPR 2005), with a uniform patch.
    """
    height, width = images.shape[-2:]
    reach = min(reach, height - 1, width - 1)
    padded = _mirrored(images, reach)
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            shifted = padded[..., down : down + height, right : right + width]
            difference = (images - shifted).square().mean(dim=1, keepdim=True)
            distance = functional.avg_pool2d(_mirrored(difference, 1), 3, stride=1)
            weight = torch.exp(-distance / strength**2)
            total, weights = total + weight * shifted, weights + weight
    return total / weights


def sharpen(images: Tensor, amount: float) -> Tensor:
    """Add ``amount`` of what a Gaussian of 0.7 pixels takes away (an unsharp mask); may leave the range."""
    return images + amount * (images - gaussian(images)) if amount else images


DENOISERS: Mapping[str, Callable[[Tensor, float], Tensor]] = MappingProxyType(
    {"median": median, "gaussian": gaussian, "non-local-means": non_local_means}
)
"""Denoisers by the name that a configuration uses: (images, strength) -> images. Read-only."""


def _mirrored(images: Tensor, radius: int) -> Tensor:
    return functional.pad(images, (radius,) * 4, mode="reflect")
