"""Resizing stacks of grey pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ROWS = 4096


def resize_grey(images: Tensor, size: int, *, largest: int = 255) -> Tensor:
    """Turn images uint8 (N, H, W) with values 0..largest into uint8 (N, 1, size, size) with values 0..255.

    Bilinear, antialiased when it makes them smaller.
    """
    parts = [_resize(part, size, largest) for part in torch.split(images, _ROWS)]
    return torch.cat(parts) if parts else images.new_empty((0, 1, size, size))


def _resize(images: Tensor, size: int, largest: int) -> Tensor:
    values = images.unsqueeze(1).to(torch.float32) * (255 / largest)
    if values.shape[-2:] != (size, size):
        values = functional.interpolate(values, (size, size), mode="bilinear", antialias=True)
    return values.round().clamp(0, 255).to(torch.uint8)
