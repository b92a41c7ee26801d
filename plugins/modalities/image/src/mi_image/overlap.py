"""Does the adversary's data hold the private data? Equal images by hash, look-alikes by perceptual hash.

The perceptual hash is the 64-bit DCT hash of pHash (Zauner, 2010, section 3.2.1): of the luminance at 32x32
pixels, the 8x8 lowest frequencies without the constant row and column, each compared with their median.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_image.adapter import luminance
from micore.contracts import Dataset, Split
from micore.errors import DataError

HASH = "64-bit DCT hash"
MAX_DISTANCE = 4
N_EXAMPLES = 10
_SIDE = 32
_BITS = 64
_LEAST_DEVIATION = 4 / 255
_ROWS = 1024


def measure_overlap(dataset: Dataset, max_distance: int = MAX_DISTANCE) -> dict[str, Any]:
    """Count the public and holdout images that equal or resemble a private image.

    Returns, for ``public`` and ``holdout`` (where the data set has them): ``n``, ``equal`` (same bytes),
    ``near`` (not equal, and at most ``max_distance`` of 64 bits apart; flat images are never near anything),
    and ``examples``: up to ten ``{index, private_index, distance}``, where an equal image has distance 0.
    """
    private = _Fingerprints(dataset.split("private"))
    found: dict[str, Any] = {
        "hash": HASH,
        "max_distance": max_distance,
        "private": {"n": len(private.digests)},
    }
    for name in ("public", "holdout"):
        try:
            split = dataset.split(name)
        except DataError:
            continue
        found[name] = _compare(private, _Fingerprints(split), max_distance)
    return found


class _Fingerprints:
    """Both hashes of every image of a split: digests, signs (N, 64) in {-1, 1}, and which images are flat."""

    def __init__(self, split: Split) -> None:
        self.digests: list[bytes] = []
        signs, flat = [torch.empty(0, _BITS)], [torch.empty(0, dtype=torch.bool)]
        for start in range(0, len(split), _ROWS):
            images = split.take(range(start, min(start + _ROWS, len(split))))
            levels = (images * 255).round().to(torch.uint8)
            self.digests += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in levels.numpy()]
            signs.append(perceptual_signs(images))
            flat.append(luminance(images).flatten(1).std(dim=1) < _LEAST_DEVIATION)
        self.signs, self.flat = torch.cat(signs), torch.cat(flat)


def perceptual_signs(images: Tensor) -> Tensor:
    """Hash images (N, C, H, W) in [0, 1] to (N, 64) in {-1, 1}; (64 - a @ b) / 2 is the Hamming distance."""
    grey = functional.interpolate(luminance(images), (_SIDE, _SIDE), mode="bilinear", antialias=True)
    basis = _cosines().to(grey)
    frequencies = (basis @ grey.squeeze(1) @ basis.T).flatten(1)
    median = frequencies.quantile(0.5, dim=1, keepdim=True)
    return torch.where(frequencies > median, 1.0, -1.0)


def _cosines() -> Tensor:
    """Return rows 1..8 of the DCT-II of length 32, (8, 32)."""
    frequency = torch.arange(1, 9, dtype=torch.float64).unsqueeze(1)
    position = torch.arange(_SIDE, dtype=torch.float64) + 0.5
    return torch.cos(math.pi / _SIDE * frequency * position)


def _compare(private: _Fingerprints, other: _Fingerprints, max_distance: int) -> dict[str, Any]:
    first = {digest: index for index, digest in reversed(list(enumerate(private.digests)))}
    equal = {index: first[digest] for index, digest in enumerate(other.digests) if digest in first}
    near = {index: pair for index, pair in _nearest(private, other, max_distance).items() if index not in equal}
    pairs = [(index, match, 0) for index, match in equal.items()]
    pairs += [(index, match, distance) for index, (match, distance) in near.items()]
    examples = [
        {"index": index, "private_index": match, "distance": distance} for index, match, distance in pairs[:N_EXAMPLES]
    ]
    return {"n": len(other.digests), "equal": len(equal), "near": len(near), "examples": examples}


def _nearest(private: _Fingerprints, other: _Fingerprints, max_distance: int) -> dict[int, tuple[int, int]]:
    """Return, for each image that is near a private one, the nearest and its distance."""
    candidates = torch.nonzero(~private.flat).squeeze(1)
    found: dict[int, tuple[int, int]] = {}
    if not len(candidates):
        return found
    columns = private.signs[candidates].T
    for start in range(0, len(other.signs), _ROWS):
        agreement, column = (other.signs[start : start + _ROWS] @ columns).max(dim=1)
        distance = (_BITS - agreement) / 2
        near = torch.nonzero((distance <= max_distance) & ~other.flat[start : start + _ROWS]).squeeze(1)
        for row in near.tolist():
            found[start + row] = (int(candidates[column[row]]), int(distance[row]))
    return found
