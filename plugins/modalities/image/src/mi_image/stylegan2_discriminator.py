"""Residual discriminator of StyleGAN2-ADA in plain torch operations, to train small generators.

Sources: StyleGAN2 (Karras et al., CVPR 2020, figure 7, residual architecture), StyleGAN2-ADA (Karras et al.,
NeurIPS 2020, appendix C).

Fidelity notes

- Paper: the skip of a block is a strided 1x1 convolution after a low-pass filter. Here the filter itself has
  the stride and the 1x1 convolution has none, which is the same sum.
- Paper: the groups of the minibatch standard deviation are strided through the batch. Here they are
  neighbours, so that real and generated images can share a pass without sharing a group.
- Nothing is clamped: activations are float32, or under torch.autocast.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_image.stylegan2_layers import EqualizedLinear, fir_filter

__all__ = ["Discriminator", "EqualizedConv", "minibatch_deviation"]

_GAIN = math.sqrt(2.0)
_HALF = math.sqrt(0.5)
"""Each branch of a residual sum is scaled by this, which keeps the variance."""


def minibatch_deviation(maps: Tensor, group: int = 4) -> Tensor:
    """Append how much neighbours in the batch differ, as one map: (B, C, H, W) to (B, C + 1, H, W).

    Standard deviation over each group of ``group`` samples (or of the largest number below that divides the
    batch), averaged over channels and places (Karras et al., ICLR 2018, section 3).
    """
    size = next(n for n in range(min(group, len(maps)), 0, -1) if len(maps) % n == 0)
    grouped = maps.reshape(-1, size, *maps.shape[1:])
    deviation = (grouped.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    spread = deviation.repeat_interleave(size)[:, None, None, None].expand(-1, 1, *maps.shape[2:])
    return torch.cat([maps, spread], dim=1)


class EqualizedConv(nn.Module):
    """Convolution with equalised learning rate, k x k, that keeps or halves the size.

    Args:
        inputs, outputs: channels.
        kernel: k, 1 or 3.
        down: halve height and width behind a low-pass filter.
        activate: bias and leaky ReLU (0.2) with gain sqrt(2) follow; otherwise there is no bias.
    """

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, activate: bool = True) -> None:
        super().__init__()
        self.kernel, self.down = kernel, down
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.weight_gain = 1 / math.sqrt(inputs * kernel**2)
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.register_buffer("resample_filter", fir_filter(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, r, r) to (B, outputs, r, r), or r/2 if ``down``."""
        weight = (self.weight * self.weight_gain).to(maps.dtype)
        maps = self._convolve(maps, weight)
        if self.bias is None:
            return maps
        return functional.leaky_relu(maps + self.bias.to(maps.dtype)[:, None, None], 0.2) * _GAIN

    def _convolve(self, maps: Tensor, weight: Tensor) -> Tensor:
        if not self.down:
            return functional.conv2d(maps, weight, padding=self.kernel // 2)
        low_pass = self.resample_filter.to(maps.dtype).expand(maps.shape[1], 1, -1, -1)
        if self.kernel == 1:
            return functional.conv2d(
                functional.conv2d(maps, low_pass, stride=2, padding=1, groups=maps.shape[1]), weight
            )
        smooth = functional.conv2d(maps, low_pass, padding=2, groups=maps.shape[1])
        return functional.conv2d(smooth, weight, stride=2)


class _Block(nn.Module):
    """Two convolutions and a skip; halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv(inputs, inputs, 3)
        self.conv1 = EqualizedConv(inputs, outputs, 3, down=True)
        self.skip = EqualizedConv(inputs, outputs, 1, down=True, activate=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, r, r) to (B, outputs, r/2, r/2)."""
        result: Tensor = (self.conv1(self.conv0(maps)) + self.skip(maps)) * _HALF
        return result


class Discriminator(nn.Module):
    """Score pictures: (B, channels, size, size) in about [-1, 1] to logits (B,), positive for real.

    A score depends on its neighbours in the batch through the minibatch standard deviation, by design.

    Args:
        size: height and width, a power of two from 8.
        channels: colour channels.
        channel_base, channel_max: at r px there are min(channel_base / r, channel_max) channels, as in the
            generator.
    """

    def __init__(self, size: int, channels: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        sizes = [2**i for i in range(size.bit_length() - 1, 1, -1)]
        widths = [min(channel_base // r, channel_max) for r in sizes]
        self.from_image = EqualizedConv(channels, widths[0], 1)
        self.blocks = nn.Sequential(*(_Block(inputs, outputs) for inputs, outputs in pairwise(widths)))
        self.last = EqualizedConv(widths[-1] + 1, widths[-1], 3)
        self.dense = EqualizedLinear(widths[-1] * 16, widths[-1], activate=True)
        self.score = EqualizedLinear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B,)."""
        maps = minibatch_deviation(self.blocks(self.from_image(images)))
        logits: Tensor = self.score(self.dense(self.last(maps).flatten(1)))
        return logits.flatten()
