"""Penalties on pixels, for attacks that have no prior to keep their images smooth.

All take images (B, ..., H, W) and return (B,): one value for everything behind the first dimension. Images of their
own have (B, C, H, W); a group (B, G, C, H, W) has one joint value, as a batch has in the published code. Half
precision is computed in float32, where sums of squares of many pixels overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_l2_norm", "total_variation_l1", "total_variation_l2"]


def total_variation_l2(images: Tensor) -> Tensor:
    """Return the sum over four directions of the L2 norm of neighbour differences, (B,).

    Directions: right, down and both diagonals. It is not squared, so it grows with the root of the number of pixels.
    Source: Yin et al., "Dreaming to Distill" (CVPR 2020), authors' code; Mordvintsev et al., "Inceptionism" (2015).
    """
    norms = [torch.linalg.vector_norm(difference.flatten(1), dim=1) for difference in _differences(images)]
    return torch.stack(norms).sum(dim=0)


def total_variation_l1(images: Tensor) -> Tensor:
    """Return the sum over four directions of the mean absolute neighbour difference, (B,). Source: as above."""
    return torch.stack([difference.flatten(1).abs().mean(dim=1) for difference in _differences(images)]).sum(dim=0)


def mean_l2_norm(images: Tensor) -> Tensor:
    """Return the mean L2 norm of the images (C, H, W) of each group (B, ..., C, H, W), as (B,)."""
    norms: Tensor = torch.linalg.vector_norm(_wide(images).flatten(-3), dim=-1)
    return norms.flatten(1).mean(dim=1) if norms.ndim > 1 else norms


def _differences(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = _wide(images)
    return (
        images[..., :, 1:] - images[..., :, :-1],
        images[..., 1:, :] - images[..., :-1, :],
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )


def _wide(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32))
