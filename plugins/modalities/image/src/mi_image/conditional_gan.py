"""Class-conditional residual GAN: the prior of PLG-MI, also used by LOKT and other attacks.

The generator is a residual network with class-conditional batch normalisation; the critic is a spectrally
normalised residual network with a projection head (Miyato & Koyama, "cGANs with Projection Discriminator",
ICLR 2018), as used in Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative
Adversarial Network", AAAI 2023.

Fidelity notes (paper / authors' code / here)
- Output range: the authors' generator ends in tanh, [-1, 1], although its training images are in [0, 1].
  Here the tanh is mapped to the canonical range [0, 1].
- Shortcuts: the authors resize and then apply the 1x1 convolution in the generator, and convolve and then
  pool in the critic. Here the convolution always runs on the smaller map; both orders give the same
  function, because a 1x1 convolution commutes with a linear resampling whose weights sum to one.
- Sizes: the paper's network is 64x64. Here any size 4 * 2**n, n >= 1; at 64 and `base=64` the widths are
  the paper's, larger sizes add blocks of `base` channels at the fine end (as the public 256x256 variants
  do), smaller ones drop the widest blocks.
- Initialisation: torch's defaults in the generator, Xavier in the critic, as in the authors' code.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from micore.errors import MiError

_SMALLEST_MAP = 4
_MOST_DOUBLINGS = 4


def block_widths(size: int, base: int) -> list[int]:
    """Return the channels at every scale, coarse to fine: one more than there are doublings.

    `size` is the side of the (square) images in pixels. At 64 pixels: [16, 8, 4, 2, 1] * base.
    Raises MiError unless `size` is 4 * 2**n with n >= 1.
    """
    doublings = int(math.log2(max(size, 1) / _SMALLEST_MAP))
    if doublings < 1 or _SMALLEST_MAP * 2**doublings != size:
        raise MiError(
            f"the conditional GAN cannot make {size}x{size} images",
            hint="resize the data to 8, 16, 32, 64, 128 or 256 pixels",
        )
    start = min(doublings, _MOST_DOUBLINGS)
    return [base * 2 ** max(start - scale, 0) for scale in range(doublings + 1)]


def require_makeable(images: Tensor, base: int) -> None:
    """Check that a GAN of this width can make images like these, (N, C, H, W), before any work is done.

    Raises MiError unless they are square, of a size that `block_widths` accepts.
    """
    height, width = images.shape[2:]
    if height != width:
        raise MiError(f"the conditional GAN makes square images, not {height}x{width}", hint="crop the data to squares")
    block_widths(height, base)


def double(maps: Tensor) -> Tensor:
    """Resize (B, C, H, W) to (B, C, 2H, 2W), bilinearly."""
    return functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale (initially 1) and shift (initially 0) belong to the class label."""

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(n_classes, channels)
        self.shift = nn.Embedding(n_classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Normalise maps (B, C, H, W) with the affine parameters of labels (B,)."""
        scale = self.scale(labels)[:, :, None, None]
        shift = self.shift(labels)[:, :, None, None]
        return torch.addcmul(shift, self.norm(maps), scale)


class UpBlock(nn.Module):
    """Residual block that doubles height and width."""

    def __init__(self, inputs: int, outputs: int, n_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(inputs, n_classes)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = ConditionalBatchNorm(outputs, n_classes)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        hidden = self.conv1(double(functional.relu(self.norm1(maps, labels))))
        hidden = self.conv2(functional.relu(self.norm2(hidden, labels)))
        return hidden + double(self.shortcut(maps))


class ConditionalGenerator(nn.Module):
    """Map latents (B, latent_dim) and labels (B,) to images (B, channels, size, size) in [0, 1], float32."""

    def __init__(
        self, n_classes: int, latent_dim: int = 128, size: int = 64, channels: int = 3, base: int = 64
    ) -> None:
        super().__init__()
        widths = block_widths(size, base)
        self.n_classes, self.latent_dim = n_classes, latent_dim
        self.size, self.channels = size, channels
        self.project = nn.Linear(latent_dim, widths[0] * _SMALLEST_MAP**2)
        self.blocks = nn.ModuleList(UpBlock(wide, fine, n_classes) for wide, fine in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.paint = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Generate one image per row."""
        maps = self.project(latents).unflatten(1, (-1, _SMALLEST_MAP, _SMALLEST_MAP))
        for block in self.blocks:
            maps = block(maps, labels)
        values = self.paint(functional.relu(self.norm(maps)))
        images = (torch.tanh(values.float()) + 1) / 2
        return images.contiguous()  # whatever layout this network has, the target keeps its own


def _normalised_conv(inputs: int, outputs: int, kernel: int, gain: float) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight, gain)
    return spectral_norm(conv)


class DownBlock(nn.Module):
    """Residual block that halves height and width; the first block of a critic has no leading ReLU."""

    def __init__(self, inputs: int, outputs: int, first: bool = False) -> None:
        super().__init__()
        hidden = outputs if first else inputs
        self.first = first
        self.conv1 = _normalised_conv(inputs, hidden, 3, math.sqrt(2))
        self.conv2 = _normalised_conv(hidden, outputs, 3, math.sqrt(2))
        self.shortcut = _normalised_conv(inputs, outputs, 1, 1.0)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        hidden = self.conv1(maps if self.first else functional.relu(maps))
        hidden = functional.avg_pool2d(self.conv2(functional.relu(hidden)), 2)
        return hidden + self.shortcut(functional.avg_pool2d(maps, 2))


class ProjectionDiscriminator(nn.Module):
    """Score images (B, channels, size, size) in [0, 1] under labels (B,): (B,), higher is more real."""

    def __init__(self, n_classes: int, size: int = 64, channels: int = 3, base: int = 64) -> None:
        super().__init__()
        widths = block_widths(size, base)[::-1]
        first = DownBlock(channels, widths[0], first=True)
        rest = (DownBlock(fine, wide) for fine, wide in pairwise(widths))
        self.blocks = nn.Sequential(first, *rest)
        score, embedding = nn.Linear(widths[-1], 1), nn.Embedding(n_classes, widths[-1])
        nn.init.xavier_uniform_(score.weight)
        nn.init.xavier_uniform_(embedding.weight)
        self.score = spectral_norm(score)
        self.embedding = spectral_norm(embedding)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return psi(h) + <embedding(label), h> with h the features summed over the last map, float32."""
        features = functional.relu(self.blocks(images)).float().sum(dim=(2, 3))
        projection = (self.embedding(labels) * features).sum(dim=1)
        return (self.score(features).squeeze(1) + projection).float()
