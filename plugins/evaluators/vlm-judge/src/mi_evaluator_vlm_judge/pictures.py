"""The picture that is sent: A, a gap, and real images B1, B2, ... in a row, with captions.

Source: the protocol FMLLM (arXiv:2505.03519), which pastes a reconstruction and four private images of its class side
by side, 224 pixels each, with a gap of 100 after the first.
"""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image, ImageDraw
from torch import Tensor

SIDE, GAP, CAPTION = 224, 100, 24
"""Pixels: of an image, between A and B1, and of the line below the images."""


def side_by_side(image: Tensor, references: Tensor) -> Image.Image:
    """Paste an image (C, H, W) and references (R, C, H, W), all in [0, 1], grey or RGB, into one RGB picture."""
    canvas = Image.new("RGB", (SIDE + GAP + SIDE * len(references), SIDE + CAPTION), "white")
    pen = ImageDraw.Draw(canvas)
    for place, (name, pixels) in enumerate([("A", image), *((f"B{n}", one) for n, one in enumerate(references, 1))]):
        left = place * SIDE + (GAP if place else 0)
        canvas.paste(to_picture(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, 0))
        pen.text((left + SIDE // 2, SIDE + CAPTION // 2), name, fill="black", anchor="mm", font_size=18)
    return canvas


def to_picture(image: Tensor) -> Image.Image:
    """Return an image (1 or 3, H, W) in [0, 1] with 8 bits a channel; pixels that are no numbers are black."""
    pixels = (image.detach().float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


def data_url(picture: Image.Image) -> str:
    """Return a picture as a PNG in a URL, without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
