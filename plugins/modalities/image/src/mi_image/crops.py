"""Random crops as views of an image, and what a target says of an image over many of them.

Source: Struppek et al., "Plug & Play Attacks" (ICML 2022), section 3.3 and the authors' configuration: crops of
90 to 100 % of the area, always square, in the search; crops of 50 to 90 % of the area with a ratio of width to height
of 0.8 to 1.2, mirrored half of the time, in the last selection.

Fidelity notes (paper / authors' code / here)
- The authors draw again when a crop is wider or higher than the image; here its side is cut to the image's.
- Crops are resampled bilinearly to the size of the image itself, and the target's adapter resizes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_image.augment import Augmentation
from micore.contracts import Case
from micore.kit.case_rows import score_rows
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["RandomCrop", "final_views", "mean_confidences", "search_views", "view_numbers"]

VIEWS_AT_ONCE = 4
"""Views of each row in one forward pass; constant, so that the passes have the same shape for every case."""


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """Crops of ``crop_area`` to ``crop_area_most`` of the image, ``aspect`` the largest width / height and its inverse.

    The logarithm of the ratio is uniform, as in torchvision's RandomResizedCrop. Colours stay as they are.
    """

    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    crop_area_most: float = 1.0
    aspect: float = 1.0

    n_numbers = 5

    def _warp(self, images: Tensor, numbers: Tensor) -> Tensor:
        if self.crop_area == 1 and self.flip == 0:
            return images
        return super()._warp(images, numbers)

    def _affine(self, numbers: Tensor) -> Tensor:
        """Return (B, 2, 3), from output to input coordinates in [-1, 1]."""
        area, ratio, right, down, flip = numbers.unbind(1)
        side = torch.sqrt(self.crop_area + (self.crop_area_most - self.crop_area) * area)
        stretch = torch.exp(math.log(self.aspect) / 2 * (2 * ratio - 1))
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
        mirror = 1 - 2 * (flip < self.flip).to(side.dtype)
        nothing = torch.zeros_like(side)
        top = torch.stack([mirror * width, nothing, (1 - width) * (2 * right - 1)], dim=1)
        bottom = torch.stack([nothing, height, (1 - height) * (2 * down - 1)], dim=1)
        return torch.stack([top, bottom], dim=1)


def search_views(crop_area: float) -> RandomCrop:
    """Return the square crops of ``crop_area`` (authors: 0.9; dogs 0.75) to the whole image."""
    return RandomCrop(crop_area=crop_area, flip=0.0)


def final_views(flip: float) -> RandomCrop:
    """Return the views of PPA's last selection, mirrored with probability ``flip``."""
    return RandomCrop(crop_area=0.5, crop_area_most=0.9, aspect=1.2, flip=flip)


def view_numbers(
    cases: Sequence[Case], restarts: int, views: int, augmentation: Augmentation, runtime: Runtime,
    purpose: str = "final views",
) -> Tensor:  # fmt: skip
    """Draw the random numbers of every row's views, each row from its own stream: (rows, views, n_numbers)."""
    shape = (views, augmentation.n_numbers)
    streams = (runtime.rng(purpose, case.id, restart) for case in cases for restart in range(restarts))
    return torch.stack([stream.uniform(shape) for stream in streams])


def mean_confidences(
    target: Target, images: Tensor, labels: Tensor, numbers: Tensor, augmentation: Augmentation,
    owners: Sequence[str], runtime: Runtime,
) -> tuple[Tensor, bool]:  # fmt: skip
    """Return the target's mean probability of each row's label over random views, and whether the budget was enough.

    images (N, C, H, W); labels (N,); numbers (N, views, n_numbers). Without views (0) the image itself is looked at.
    """

    def score(samples: Tensor, wanted: Tensor, drawn: Tensor) -> Tensor:
        views = drawn.shape[1]
        total = torch.zeros(len(samples), device=samples.device)
        for start in range(0, views, VIEWS_AT_ONCE):
            part = drawn[:, start : start + VIEWS_AT_ONCE].transpose(0, 1)
            seen = augmentation.apply(samples.repeat(len(part), 1, 1, 1), part.flatten(0, 1))
            total += _probabilities(target, seen, wanted.repeat(len(part))).view(len(part), -1).sum(0)
        return total / views if views else _probabilities(target, samples, wanted)

    return score_rows(score, runtime.tile, images, labels, numbers, ledger=target.ledger, owners=owners)


def _probabilities(target: Target, images: Tensor, labels: Tensor) -> Tensor:
    logits: Tensor = target.module(images)
    return logits.float().softmax(dim=1).gather(1, labels[:, None])[:, 0]
