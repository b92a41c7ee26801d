"""How the copies of a candidate are changed: warped, with a square erased, or noisy; random numbers given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mi_image.augment import Augmentation
from micore.kit.keyed_noise import gaussian, sample_codes, sample_hashes, uniforms

__all__ = ["Change", "Erasing", "Noise", "Warp", "copy_numbers"]


class Change(Protocol):
    """A random change of images."""

    def n_numbers(self, images: Tensor) -> int:
        """Return how many random numbers one of the images (B, C, H, W) needs."""

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Change images (B, C, H, W) by numbers (B, n) from U(0, 1): same shape, differentiable."""


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A random crop, mirror image, rotation and change of colours (transformation-averaged alignment)."""

    augmentation: Augmentation

    def n_numbers(self, images: Tensor) -> int:
        """Return how many numbers the augmentation takes."""
        return self.augmentation.n_numbers

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Change images; they stay in [0, 1]."""
        return self.augmentation.apply(images, numbers)


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """A square of ``least`` to ``most`` of the image's area, anywhere inside, is filled with ``fill``."""

    least: float
    most: float
    fill: float

    def n_numbers(self, images: Tensor) -> int:
        """Return 3: area and place."""
        return 3

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Erase the squares; what is under them has no gradient."""
        area, down, right = numbers.unbind(1)
        side = torch.sqrt(self.least + (self.most - self.least) * area)
        rows, columns = (
            _span((1 - side) * place, side, length)
            for place, length in zip((down, right), images.shape[2:], strict=True)
        )
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], self.fill)


def _span(start: Tensor, side: Tensor, length: int) -> Tensor:
    """Tell which of ``length`` pixels have their centre in [start, start + side), shares of the length: (B, length)."""
    centres = (torch.arange(length, device=start.device) + 0.5) / length
    return (centres >= start[:, None]) & (centres < (start + side)[:, None])


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Normal noise of standard deviation ``spread`` in every value (perturbation-averaged alignment)."""

    spread: float

    def n_numbers(self, images: Tensor) -> int:
        """Return one for each value."""
        return images[0].numel()

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Add the noise; as in the paper, nothing is clipped."""
        return images + self.spread * gaussian(numbers).view_as(images)


@torch.no_grad()
def copy_numbers(images: Tensor, keys: list[int], n: int) -> Callable[[int], Tensor]:
    """Return the random numbers (B, n) of each copy, by its number: fixed by the key and the candidate's own pixels.

    Whichever rows share its batch and whenever it is seen, a candidate is changed in the same ways, and another
    candidate, such as the same row's at its next step, in others.
    """
    codes = sample_codes(images, images, keys[0])
    return lambda copy: uniforms(sample_hashes(codes, keys[copy]), n)
