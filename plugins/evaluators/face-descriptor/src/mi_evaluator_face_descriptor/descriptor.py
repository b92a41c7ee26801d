"""From pictures of faces to descriptors: alignment by the eyes, then the network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mi_evaluator_face_descriptor.network import CHIP_SIZE, DESCRIPTOR_SIZE, FaceDescriptor
from micore.errors import DataError

Point = tuple[float, float]

EYES: tuple[Point, Point] = ((0.27, 0.34), (0.73, 0.34))
"""The viewer's left and right eye in the picture, (x, y) as fractions of its width and height."""

CHIP_EYES: tuple[Point, Point] = ((47.7, 47.1), (100.3, 47.1))
"""Where dlib's alignment puts the eyes on the chip, (x, y) in pixels (centre of the first: 0)."""


@torch.no_grad()
def chips(images: Tensor, eyes: tuple[Point, Point] = EYES) -> Tensor:
    """Cut aligned (B, 3, 150, 150) faces in [0, 1] out of pictures; no gradients.

    ``images``: (B, 3 or 1, H, W) in [0, 1], of any size, on any device; grey is repeated to RGB.
    ``eyes``: where the eyes are in all of these pictures. They are turned, scaled and moved so that
    the eyes land on `CHIP_EYES`; what lies outside repeats the edge. Bicubic; pictures that would
    shrink are reduced with an antialiasing filter before. Raises `DataError` on other input.
    """
    _check_images(images)
    images = _reduce(images.float().expand(-1, 3, -1, -1), eyes)
    theta = torch.tensor(_alignment(eyes, images.shape[-2], images.shape[-1]), device=images.device)
    grid = functional.affine_grid(theta.expand(len(images), 2, 3), [len(images), 3, CHIP_SIZE, CHIP_SIZE], False)
    # "border" clamps every bicubic tap, so the edge goes on for ever; with `EYES` a chip reaches
    # 0.24 of the side beyond it (16 px of 64).
    aligned = functional.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return aligned.clamp(0.0, 1.0)


@torch.no_grad()
def describe(network: FaceDescriptor, images: Tensor, batch_size: int = 64, eyes: tuple[Point, Point] = EYES) -> Tensor:
    """Return the (N, 128) descriptors of (N, 3 or 1, H, W) pictures in [0, 1], on the CPU.

    Works on the network's device, ``batch_size`` pictures at a time; ``eyes`` as in `chips`. The
    network has no mode-dependent layer, so it is used as it is found.
    """
    _check_images(images)
    device = next(network.parameters()).device
    parts = [network(chips(part.to(device), eyes)).cpu() for part in images.split(batch_size) if len(part)]
    return torch.cat(parts) if parts else torch.empty(0, DESCRIPTOR_SIZE)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise DataError(
            f"faces must be (B, 3 or 1, H, W) floats, not {tuple(images.shape)} {images.dtype}",
            hint="give RGB or grey pictures in [0, 1]",
        )


def _alignment(eyes: tuple[Point, Point], height: int, width: int) -> list[list[float]]:
    """Return the 2x3 map from chip to picture, both in the coordinates of `affine_grid`.

    A similarity is one complex multiplication and one addition, ``picture = turn * chip + shift``,
    which two pairs of points fix.
    """
    chip_left, chip_right = (complex(x + 0.5, y + 0.5) for x, y in CHIP_EYES)
    left, right = _in_pixels(eyes, height, width)
    turn = (right - left) / (chip_right - chip_left)
    shift = left - turn * chip_left
    # Both sides span [-1, 1]: chip = half * (1 + u), picture = side / 2 * (1 + u).
    half = CHIP_SIZE / 2
    centre = turn * complex(half, half) + shift
    across = [half * turn.real, -half * turn.imag, centre.real]
    down = [half * turn.imag, half * turn.real, centre.imag]
    return [
        [2 / width * across[0], 2 / width * across[1], 2 / width * across[2] - 1],
        [2 / height * down[0], 2 / height * down[1], 2 / height * down[2] - 1],
    ]


def _reduce(images: Tensor, eyes: tuple[Point, Point]) -> Tensor:
    """Shrink pictures whose eyes are farther apart than on the chip; `grid_sample` would alias."""
    height, width = images.shape[-2:]
    left, right = _in_pixels(eyes, height, width)
    factor = (CHIP_EYES[1][0] - CHIP_EYES[0][0]) / abs(right - left)
    if factor >= 1 or len(images) == 0:
        return images
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)


def _in_pixels(eyes: tuple[Point, Point], height: int, width: int) -> tuple[complex, complex]:
    left, right = (complex(x * width, y * height) for x, y in eyes)
    if not abs(right - left) > 0:
        raise DataError(f"the eyes {eyes} are one point", hint="give two (x, y), fractions of the side")
    return left, right
