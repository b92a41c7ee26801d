"""Decoding picture files of any kind to square images of one size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from micore.errors import DataError

Source = Path | IO[bytes]

UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises on damaged files: each format's reader has its own way to fail."""

_MODES = {1: "L", 3: "RGB"}


def decode(
    source: Source,
    name: str,
    *,
    size: int,
    channels: int,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Tensor:
    """Decode one picture to uint8 (channels, size, size); see `square` for how.

    Raises: DataError that names the file when it cannot be read.
    """
    try:
        with Image.open(source) as picture:
            return square(picture, size=size, channels=channels, resample=resample)
    except UNREADABLE as error:
        raise DataError(
            f"{name} cannot be read as an image: {error or type(error).__name__}",
            hint="repair it or take it out",
        ) from error


def square(
    picture: Image.Image, *, size: int, channels: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """Turn a picture into uint8 (channels, size, size).

    It is turned upright as its EXIF data says, laid on white where it is transparent, cropped to the largest
    centred square and resized with an antialiasing filter. Of an animation, the first frame is taken.
    """
    upright = _flatten(ImageOps.exif_transpose(picture)).convert(_MODES[channels])
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    small = upright.resize((size, size), resample, box=(left, top, left + side, top + side))
    values = np.array(small, dtype=np.uint8).reshape(size, size, channels)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def _flatten(picture: Image.Image) -> Image.Image:
    """Return an opaque picture with 8 bits per channel."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip
        values = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8))
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def stack(images: Iterable[Tensor], size: int, channels: int) -> Tensor:
    """Stack decoded images to uint8 (N, channels, size, size)."""
    decoded = list(images)
    return torch.stack(decoded) if decoded else torch.empty((0, channels, size, size), dtype=torch.uint8)


def is_picture(name: str) -> bool:
    """Tell by its name whether Pillow has a reader for a file."""
    return Path(name).suffix.lower() in Image.registered_extensions()
