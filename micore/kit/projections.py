"""Projections that keep latents, features and inputs where a prior is trustworthy.

Every ball is taken per row: (B, ...) tensors are flattened after the batch dimension, so a case never
depends on the others in its batch. A row that is already inside comes back unchanged, bit for bit. Nothing
here works in place or turns gradients off: an optimiser wraps its projection step in ``torch.no_grad()``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "Box",
    "clamp_box",
    "from_p_space",
    "p_space_box",
    "project_l1_ball",
    "project_l2_ball",
    "to_p_space",
]

P_SPACE_SLOPE = 5.0  # undoes the LeakyReLU(0.2) that ends StyleGAN's mapping network


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: ``low`` and ``high`` broadcast against the values that it clamps."""

    low: Tensor
    high: Tensor

    def clamp(self, values: Tensor) -> Tensor:
        """Return the nearest point of the box to every row of ``values``."""
        return clamp_box(values, self.low, self.high)


def clamp_box(values: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Return ``min(max(values, low), high)``: both sides, element by element.

    Raises ValueError when two plain numbers are in the wrong order. Tensors are not compared, since that
    would wait for the accelerator at every step; where they cross, ``high`` wins.
    """
    if not isinstance(low, Tensor) and not isinstance(high, Tensor) and not low <= high:
        raise ValueError(f"low must not exceed high, got [{low}, {high}]")
    return torch.minimum(
        torch.maximum(values, torch.as_tensor(low, dtype=values.dtype, device=values.device)),
        torch.as_tensor(high, dtype=values.dtype, device=values.device),
    )


def project_l2_ball(values: Tensor, centre: Tensor, radius: Tensor | float) -> Tensor:
    """Return the nearest point to each row with ``||row - centre||_2 <= radius``.

    ``values`` (B, ...), ``centre`` broadcastable to it, ``radius`` a number or one per row (B,).
    """
    offset = (values - centre).flatten(1)
    limit = _row_radius(offset, radius)
    length = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
    return _outside_only(values, centre, offset * (limit / length.clamp(min=_tiny(length))), length > limit)


def project_l1_ball(values: Tensor, centre: Tensor, radius: Tensor | float) -> Tensor:
    """Return the nearest point (in L2) to each row with ``||row - centre||_1 <= radius``.

    Shapes as in :func:`project_l2_ball`. The magnitudes are sorted and shrunk by the one threshold theta
    that lands on the ball: theta = (s_rho - r) / rho with rho = max{j : a_j > (s_j - r) / j}. Source: Duchi
    et al., "Efficient Projections onto the l1-Ball for Learning in High Dimensions" (ICML 2008), figure 1.
    """
    offset = (values - centre).flatten(1)
    limit = _row_radius(offset, radius)
    size = offset.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - limit
    rank = torch.arange(1, offset.shape[1] + 1, device=offset.device, dtype=offset.dtype)
    rho = (ordered * rank > excess).sum(dim=1, keepdim=True).clamp(min=1)  # 0 when the radius is 0
    theta = excess.gather(1, rho - 1) / rho
    shrunk = offset.sign() * (size - theta).clamp(min=0)
    return _outside_only(values, centre, shrunk, size.sum(dim=1, keepdim=True) > limit)


def to_p_space(latents: Tensor, *, slope: float = P_SPACE_SLOPE) -> Tensor:
    """Map mapped latents w to P space, where they are nearly normal: ``w`` if positive, else ``slope * w``.

    Source: An et al., "MIRROR: Model Inversion for Deep Learning Network with High Fidelity" (NDSS 2022),
    after Zhu et al., "Improved StyleGAN Embedding" (2020).
    """
    _require_slope(slope)
    return functional.leaky_relu(latents, slope)


def from_p_space(points: Tensor, *, slope: float = P_SPACE_SLOPE) -> Tensor:
    """Invert :func:`to_p_space`: ``p`` if positive, else ``p / slope``."""
    _require_slope(slope)
    return functional.leaky_relu(points, 1 / slope)


def p_space_box(samples: Tensor, *, width: float = 1.0, slope: float = P_SPACE_SLOPE) -> Box:
    """Return the box ``mean(p) +- width * std(p)`` per dimension, mapped back to latents w.

    ``samples`` (N, ...) are mapped latents of the prior; the box has their shape without N. The map is
    monotone, so clamping the latents themselves equals clamping in P space. Source as for
    :func:`to_p_space`, with widths of about 1.
    """
    if samples.ndim < 2 or len(samples) < 2:
        raise ValueError(f"a spread needs samples (N >= 2, ...), got {tuple(samples.shape)}")
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}")
    points = to_p_space(samples, slope=slope)
    centre, spread = points.mean(dim=0), points.std(dim=0)
    low, high = centre - width * spread, centre + width * spread
    return Box(low=from_p_space(low, slope=slope), high=from_p_space(high, slope=slope))


def _outside_only(values: Tensor, centre: Tensor, offset: Tensor, outside: Tensor) -> Tensor:
    """Return ``centre + offset`` for rows that are outside, and the very same values for the others."""
    moved = centre + offset.reshape(values.shape)
    return torch.where(outside.reshape(-1, *[1] * (values.ndim - 1)), moved, values)


def _row_radius(offset: Tensor, radius: Tensor | float) -> Tensor:
    """Return the radius as (B, 1) or (1, 1)."""
    if not isinstance(radius, Tensor):
        if not radius >= 0:
            raise ValueError(f"radius must not be negative, got {radius}")
        return offset.new_full((1, 1), radius)
    if radius.shape not in ((), (1,), (len(offset),)):
        raise ValueError(f"radius must be a number or ({len(offset)},), got {tuple(radius.shape)}")
    return radius.to(offset).reshape(-1, 1)


def _require_slope(slope: float) -> None:
    if slope <= 0:
        raise ValueError(f"slope must be positive, or the map has no inverse; got {slope}")


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
