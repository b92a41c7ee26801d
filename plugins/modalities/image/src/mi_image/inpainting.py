"""Completion of partly hidden images: the prior of SecretGen and of GMI's masked variant.

Sources: Zhang et al., "The Secret Revealer" (GMI, CVPR 2020), with auxiliary knowledge; Yuan et al.,
"SecretGen: Privacy Recovery on Pre-trained Models via Distribution Discrimination" (ECCV 2022), section 3.3, whose
generator follows it: one branch reads the visible part, one draws an identity from a latent, a decoder joins them.

Fidelity notes (paper / authors' code / here)
- Sizes: the papers' network is 64x64. Here any size from 16 to 256 px; the maps on which the branches meet have a
  quarter of the side, the latent branch begins at 4x4 as published, and the dilations 2, 4, 8, 16 of the 16x16
  maps at 64 px keep their share of the side (at least 1).
- Kernels of transposed convolutions are 5x5 as in `mi_image.dcgan`; the activation comes before the batch
  normalisation in the branch that reads the image, as in the authors' code.
- Batch normalisation is trained with batch statistics; attack with ``eval()``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mi_image.corruptions import paste
from micore.errors import MiError
from micore.kit.case_rows import tiled

__all__ = ["SIZES", "Completer", "InpaintingGenerator", "patches", "require_completable"]

SIZES = (16, 32, 64, 128, 256)
_BASE = 4  # height and width of the latent branch's first map
_SHARES = (8, 4, 2, 1)  # a dilation is the side of its map over one of these


class InpaintingGenerator(nn.Module):
    """Map partly hidden images, their masks and latents z ~ N(0, I) to whole images in [0, 1].

    Args:
        latent_dim: length of z (100 in the papers).
        size: 16, 32, 64, 128 or 256 px.
        channels: colour channels of the images.
        width: channels of the first stage (32 in the papers); the maps where the branches meet have 4 times as many
            from each.

    Raises:
        ValueError: another size.
    """

    def __init__(self, latent_dim: int = 100, size: int = 64, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"InpaintingGenerator: size={size}; it exists for {SIZES} px: resize the images")
        self.latent_dim, self.size, self.channels = latent_dim, size, channels
        self.context = _context(channels + 1, width, size // 4)
        self.identity = _identity(latent_dim, 4 * width, size // 4)
        self.decoder = nn.Sequential(
            _up(8 * width, 4 * width), _up(4 * width, 2 * width), _conv(2 * width, width, 3),
            nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def read(self, images: Tensor, masks: Tensor) -> Tensor:
        """Return what images (B, C, H, W) show outside their masks (B, 1, H, W): (B, 4 width, size/4, size/4)."""
        maps: Tensor = self.context(torch.cat([images, masks], dim=1))
        return maps

    def complete(self, context: Tensor, latents: Tensor) -> Tensor:
        """Return whole images (B, C, H, W) in [0, 1] of what `read` returned and of latents (B, latent_dim)."""
        images: Tensor = self.decoder(torch.cat([context, self.identity(latents)], dim=1))
        return images.float()

    def forward(self, images: Tensor, masks: Tensor, latents: Tensor) -> Tensor:
        """Return whole images (B, C, H, W) in [0, 1]; nothing is pasted."""
        return self.complete(self.read(images, masks), latents)


def _context(channels: int, width: int, side: int) -> nn.Sequential:
    """Read an image down to maps of a quarter of its side: four plain stages, then dilated ones."""
    dilations = [max(1, side // share) for share in _SHARES]
    return nn.Sequential(
        _conv(channels, width, 5), _conv(width, 2 * width, 3, stride=2), _conv(2 * width, 2 * width, 3),
        _conv(2 * width, 4 * width, 3, stride=2), _conv(4 * width, 4 * width, 3), _conv(4 * width, 4 * width, 3),
        *(_conv(4 * width, 4 * width, 3, dilation=dilation) for dilation in dilations),
    )  # fmt: skip


def _identity(latent_dim: int, width: int, side: int) -> nn.Sequential:
    """Draw maps (width, side, side) from a latent; each doubling halves the channels, of at most 4 times ``width``."""
    doublings = (side // _BASE).bit_length() - 1
    widths = [width * 2 ** min(2, doublings - step) for step in range(doublings + 1)]
    flat = widths[0] * _BASE**2
    first = nn.Linear(latent_dim, flat, bias=False), nn.BatchNorm1d(flat), nn.ReLU()
    return nn.Sequential(*first, nn.Unflatten(1, (widths[0], _BASE, _BASE)), *(_up(*pair) for pair in pairwise(widths)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation)
    return nn.Sequential(conv, nn.ReLU(), nn.BatchNorm2d(outputs))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def require_completable(images: Tensor) -> None:
    """Check that the network can complete images like these, (N, C, H, W), before any work is done.

    Raises MiError unless they are square, of 16, 32, 64, 128 or 256 px.
    """
    height, width = images.shape[2:]
    if height != width or height not in SIZES:
        raise MiError(
            f"the completion network takes square images of {', '.join(map(str, SIZES))} pixels, not {height}x{width}",
            hint="resize the data (-d size=...) or crop it to squares",
        )


def patches(images: Tensor, numbers: Tensor) -> Tensor:
    """Cut from each image (B, C, S, S) the patch of half its side at a place given by numbers (B, 2) in [0, 1)."""
    size = images.shape[-1]
    side = size // 2
    top, left = (numbers * (size - side + 1)).long().unbind(1)
    rows, columns = (start[:, None] + torch.arange(side, device=images.device) for start in (top, left))
    batch = torch.arange(len(images), device=images.device)
    return images[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


class Completer:
    """Completes several pieces of evidence over and over: what they show is read once.

    images (C, channels, H, W), masks (C, 1, H, W): the evidence; tile: rows of one forward pass.
    """

    def __init__(self, generator: InpaintingGenerator, images: Tensor, masks: Tensor, tile: int) -> None:
        self.generator, self.images, self.masks = generator, images, masks
        self._context = tiled(generator.read, tile, images, masks)

    def whole(self, latents: Tensor, pieces: Tensor) -> Tensor:
        """Return what the network makes (B, channels, H, W) of pieces numbered (B,) and latents (B, latent_dim)."""
        return self.generator.complete(self._context[pieces], latents)

    def pasted(self, whole: Tensor, pieces: Tensor) -> Tensor:
        """Return what the network made, with the evidence of its pieces (B,) wherever that is not hidden."""
        return paste(whole, self.images[pieces], self.masks[pieces])

    def __call__(self, latents: Tensor, pieces: Tensor) -> Tensor:
        """Return completions (B, channels, H, W) of pieces (B,) by latents (B, latent_dim)."""
        return self.pasted(self.whole(latents, pieces), pieces)
