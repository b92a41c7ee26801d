"""Layers of the StyleGAN2-ADA generator in plain torch operations (no compiled extensions).

Sources: StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020) and
StyleGAN2-ADA (Karras et al., NeurIPS 2020). Parameter and buffer names and shapes are those of the official
PyTorch release, so its weights load without renaming. Everything is differentiable and computed in the dtype
of the input.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "EqualizedLinear",
    "NoiseMode",
    "StyledConv",
    "SynthesisBlock",
    "ToRgb",
    "fir_filter",
    "modulated_conv",
    "smooth",
    "upsample",
]

NoiseMode = Literal["const", "random", "none"]

_ACTIVATION_GAIN = math.sqrt(2.0)  # keeps the second moment of a leaky ReLU's output near that of its input


def fir_filter(taps: tuple[int, ...] = (1, 3, 3, 1)) -> Tensor:
    """Return the separable 2-D low-pass filter of n ``taps``, normalised to sum 1, shape (n, n)."""
    row = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(row, row)
    return kernel / kernel.sum()


def upsample(maps: Tensor, kernel: Tensor) -> Tensor:
    """Double height and width: insert zeros, filter with the 4x4 ``kernel``; (B, C, H, W) to (B, C, 2H, 2W).

    The kernel is multiplied by 4 to make up for the zeros, so that a constant map stays constant away from
    the border.
    """
    n = maps.shape[1]
    weight = (4.0 * kernel).to(maps.dtype).expand(n, 1, -1, -1)
    return functional.conv_transpose2d(maps, weight, stride=2, padding=1, groups=n)


def smooth(maps: Tensor, kernel: Tensor) -> Tensor:
    """Filter the output (B, C, 2H+1, 2W+1) of a 3x3 transposed convolution of stride 2 to (B, C, 2H, 2W).

    The kernel is symmetric, so correlation and convolution agree; the factor 4 is that of ``upsample``.
    """
    n = maps.shape[1]
    weight = (4.0 * kernel).to(maps.dtype).expand(n, 1, -1, -1)
    return functional.conv2d(maps, weight, padding=1, groups=n)


def modulated_conv(
    maps: Tensor, weight: Tensor, styles: Tensor, demodulate: bool = True, kernel: Tensor | None = None
) -> Tensor:
    """Convolve each sample with its own scaled weights (StyleGAN2, section 2.2, equations 1 to 3).

    w'_ijk = s_i w_ijk, and if ``demodulate`` w''_ijk = w'_ijk / sqrt(sum_ik w'_ijk^2 + 1e-8). Scaling the
    input maps by s and the output maps by the demodulation factor is the same sum, and needs one ordinary
    convolution for the batch.

    Args:
        maps: (B, inputs, H, W).
        weight: (outputs, inputs, k, k), k odd.
        styles: (B, inputs).
        demodulate: whether outputs get unit variance, for independent inputs of unit variance.
        kernel: low-pass filter; when given the output is twice as large (k must be 3).
    """
    scaled = maps * styles[:, :, None, None]
    if kernel is None:
        result = functional.conv2d(scaled, weight, padding=weight.shape[-1] // 2)
    else:
        result = smooth(functional.conv_transpose2d(scaled, weight.transpose(0, 1), stride=2), kernel)
    if demodulate:
        energy = styles.square() @ weight.square().sum(dim=(2, 3)).t()
        result = result * (energy + 1e-8).rsqrt()[:, :, None, None]
    return result


def _activate(maps: Tensor, bias: Tensor, clamp: float | None) -> Tensor:
    """Add a bias per channel, apply leaky ReLU (0.2) with gain sqrt(2), then clamp to +-clamp."""
    result = functional.leaky_relu(maps + bias[:, None, None], 0.2) * _ACTIVATION_GAIN
    return result if clamp is None else result.clamp(-clamp, clamp)


class EqualizedLinear(nn.Module):
    """Fully connected layer with equalised learning rate (Karras et al., ICLR 2018, section 4.1).

    Weights are stored with unit variance over ``lr_multiplier`` and scaled by lr_multiplier / sqrt(inputs)
    when used. (B, inputs) to (B, outputs).

    Args:
        bias_init: the stored bias at the start; it takes effect times lr_multiplier.
        lr_multiplier: how much slower than the others the layer learns (0.01 in the mapping network).
        activate: whether leaky ReLU (0.2) with gain sqrt(2) follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier
        self.activate = activate

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        result = functional.linear(values, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return functional.leaky_relu(result, 0.2) * _ACTIVATION_GAIN if self.activate else result


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU: (B, inputs, r, r) to (B, outputs, size, size).

    Args:
        inputs, outputs: channels.
        w_dim: length of the style code w.
        size: height and width of the output; r is size / 2 if ``up``, else size.
        up: whether the layer doubles the size.
        clamp: bound on the output; None for no bound.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, size: int, up: bool = False, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.size, self.up, self.clamp = size, up, clamp
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("resample_filter", fir_filter())
        self.register_buffer("noise_const", torch.randn(size, size))

    def forward(
        self, maps: Tensor, w: Tensor, noise: NoiseMode = "const", rng: torch.Generator | None = None
    ) -> Tensor:
        """Return activated maps; ``w`` has shape (B, w_dim), ``rng`` draws the noise of mode "random"."""
        kernel = self.resample_filter if self.up else None
        maps = modulated_conv(maps, self.weight, self.affine(w), kernel=kernel)
        if noise != "none":
            maps = maps + self._noise(maps, noise, rng) * self.noise_strength
        return _activate(maps, self.bias, self.clamp)

    def _noise(self, maps: Tensor, noise: NoiseMode, rng: torch.Generator | None) -> Tensor:
        if noise == "const":
            return self.noise_const
        if noise != "random":
            raise ValueError(f'StyledConv: noise={noise!r}; choose "const", "random" or "none"')
        if rng is None:
            raise ValueError('StyledConv: noise="random" needs rng, a torch.Generator; pass one, or use noise="const"')
        shape = (maps.shape[0], 1, self.size, self.size)
        drawn = torch.randn(shape, generator=rng, device=rng.device)
        return drawn.to(maps.device, maps.dtype)


class ToRgb(nn.Module):
    """Modulated 1x1 convolution without demodulation: (B, inputs, r, r) to a picture (B, channels, r, r)."""

    def __init__(self, inputs: int, channels: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, maps: Tensor, w: Tensor) -> Tensor:
        """Return the picture of maps (B, inputs, r, r) in the style w (B, w_dim)."""
        styles = self.affine(w) * self.weight_gain
        rgb = modulated_conv(maps, self.weight, styles, demodulate=False) + self.bias[:, None, None]
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution of the skip architecture (StyleGAN2, figure 7b): convolutions, then their picture.

    The 4x4 block (``inputs`` = 0) starts from a learned constant and has one convolution; the others double
    the size and have two. ``n_convs`` style codes drive the convolutions, one more drives ``torgb``.
    """

    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, size: int, channels: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.size = size
        self.n_convs = 2 if inputs else 1
        self.register_buffer("resample_filter", fir_filter())
        if inputs:
            self.conv0 = StyledConv(inputs, outputs, w_dim, size, up=True, clamp=clamp)
        else:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        self.conv1 = StyledConv(outputs, outputs, w_dim, size, clamp=clamp)
        self.torgb = ToRgb(outputs, channels, w_dim, clamp=clamp)

    def forward(
        self,
        maps: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        noise: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (maps, image) at this block's size.

        Args:
            maps: (B, inputs, size/2, size/2); None for the 4x4 block.
            image: the picture so far, (B, channels, size/2, size/2); None where there is none yet.
            ws: style codes (B, n_convs + 1, w_dim).
            noise: "const", "random" (drawn with ``rng``) or "none".
            rng: generator of the random noise.
        """
        if self.n_convs == 1:
            maps = self.const.expand(ws.shape[0], -1, -1, -1)
        elif maps is None:
            raise ValueError(f"SynthesisBlock {self.size} px: maps are missing; give those of the block before it")
        else:
            maps = self.conv0(maps, ws[:, 0], noise, rng)
        maps = self.conv1(maps, ws[:, self.n_convs - 1], noise, rng)
        contribution: Tensor = self.torgb(maps, ws[:, self.n_convs])
        if image is not None:
            contribution = upsample(image, self.resample_filter) + contribution
        return maps, contribution
