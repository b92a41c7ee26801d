"""Pictures that a person can open. Brightness is never stretched: 0 is black, 1 is white in all of them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from micore.files import atomic_path, safe_name

_SHOWN_SIDE = 96
_COLUMNS = 8
_GAP = 2

BLURRED_SIDE = 4
"""Pixels of the longer side of a blurred image: with 16 of them people still recognise a face that they know (Harmon
and Julesz, Science 1973), so blurred images have a sixteenth of those pixels."""


def export_grids(samples: Mapping[str, Tensor], directory: Path) -> list[Path]:
    """Write one PNG per key with all its images in rows; keys without images get none.

    Raises: StorageError.
    """
    return [_write(grid(images), directory / f"{safe_name(key)}.png") for key, images in samples.items() if len(images)]


def _write(picture: Image.Image, path: Path) -> Path:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def grid(images: Tensor) -> Image.Image:
    """Lay N > 0 images (N, C, H, W) in [0, 1] out in rows; small ones are enlarged without smoothing."""
    levels = to_bytes(images)
    height, width = levels.shape[-2:]
    factor = _enlargement(height, width)
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(levels))))
    rows = math.ceil(len(levels) / columns)
    cell_height, cell_width = height * factor + _GAP, width * factor + _GAP
    sheet = Image.new("RGB", (columns * cell_width - _GAP, rows * cell_height - _GAP), "white")
    for index, image in enumerate(levels):
        row, column = divmod(index, columns)
        large = _picture(image).resize((width * factor, height * factor), Image.Resampling.NEAREST)
        sheet.paste(large, (column * cell_width, row * cell_height))
    return sheet


def html(images: Tensor, limit: int) -> str:
    """Return an HTML fragment that holds up to ``limit`` images in itself."""
    levels = to_bytes(images[: max(limit, 0)])
    return '<div class="mi-images">' + "".join(_tag(image, index) for index, image in enumerate(levels)) + "</div>"


def blurred(images: Tensor) -> Tensor:
    """Return the mean colours of large parts of images (N, C, H, W): `BLURRED_SIDE` pixels or less, half of a side."""
    if not len(images):
        return images
    height, width = images.shape[-2:]
    side = min(BLURRED_SIDE, max(height, width) // 2)
    shape = [max(1, round(side * length / max(height, width))) for length in (height, width)]
    values = to_bytes(images).to(torch.float32) / 255
    return torch.nn.functional.adaptive_avg_pool2d(values, shape)


def _tag(image: Tensor, index: int) -> str:
    stream = io.BytesIO()
    _picture(image).save(stream, format="PNG")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    height, width = image.shape[-2:]
    factor = _enlargement(height, width)
    style = ' style="image-rendering: pixelated"' if factor > 1 else ""
    size = f'width="{width * factor}" height="{height * factor}"'
    return f'<img alt="sample {index + 1}" {size}{style} src="data:image/png;base64,{data}">'


def to_bytes(images: Tensor) -> Tensor:
    """Return images in [0, 1] as uint8 on the CPU; clipped; what is no number is black."""
    values = images.detach().to("cpu", torch.float32).nan_to_num(nan=0.0, posinf=1.0, neginf=0.0)
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def _picture(image: Tensor) -> Image.Image:
    """Turn uint8 (1 or 3, H, W) into a picture."""
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _enlargement(height: int, width: int) -> int:
    return max(1, _SHOWN_SIDE // max(height, width))
