"""The network of dlib's ``face_recognition_resnet_model_v1`` in torch.

A ResNet with 29 convolutions after He et al., "Deep residual learning for image recognition" (CVPR
2016), with half the filters, as its author describes it (https://github.com/davisking/dlib-models).
Batch normalisation is already folded into a scale and a shift per channel. Modules carry the names
of the tensors in the published weights, so a state dict needs no table of names.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

CHIP_SIZE = 150
"""Side of the aligned face that the network sees, in pixels."""

DESCRIPTOR_SIZE = 128

_MEAN_RGB = (122.782, 117.001, 104.298)
_INPUT_SCALE = 256.0

_BLOCKS: tuple[tuple[str, int, int, bool], ...] = (
    ("conv32_1", 32, 32, False),
    ("conv32_2", 32, 32, False),
    ("conv32_3", 32, 32, False),
    ("conv64_down", 32, 64, True),
    ("conv64_1", 64, 64, False),
    ("conv64_2", 64, 64, False),
    ("conv64_3", 64, 64, False),
    ("conv128_down", 64, 128, True),
    ("conv128_1", 128, 128, False),
    ("conv128_2", 128, 128, False),
    ("conv256_down", 128, 256, True),
    ("conv256_1", 256, 256, False),
    ("conv256_2", 256, 256, False),
    ("conv256_down_out", 256, 256, True),
)
"""Name, channels in, channels out, halves the resolution."""


class ChannelScale(nn.Module):
    """Multiply and shift every channel of a (B, C, H, W) batch: a folded batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return a batch of the same shape."""
        return features * self.weight[:, None, None] + self.bias[:, None, None]


class ScaledConv(nn.Module):
    """Convolution, then `ChannelScale`. dlib pads with zeros only where the stride is 1."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
        self.scale = ChannelScale(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H', W')."""
        return self.scale(self.conv(features))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a ``down`` block halves the resolution.

    The shortcut of a down block has no weights: a 2x2 average, and zeros for the channels that it
    lacks. Where the unpadded convolution comes out one pixel smaller than the average (dlib at
    8 -> 3 against 4), zeros are added below and to the right.
    """

    def __init__(self, channels_in: int, channels_out: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = ScaledConv(channels_in, channels_out, stride=2 if down else 1)
        self.conv2 = ScaledConv(channels_out, channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H', W')."""
        residual = self.conv2(functional.relu(self.conv1(features)))
        shortcut = functional.avg_pool2d(features, 2) if self.down else features
        return functional.relu(_add_padded(shortcut, residual))


class FaceDescriptor(nn.Module):
    """Map aligned faces to descriptors whose L2 distance is small for one person.

    ``forward(chips)``: (B, 3, 150, 150) RGB in [0, 1] -> (B, 128). dlib calls two faces the same
    person when their distance is below 0.6. New instances have random weights.
    """

    mean_rgb: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_rgb", torch.tensor(_MEAN_RGB).view(3, 1, 1), persistent=False)
        self.conv32_down = ScaledConv(3, 32, kernel=7, stride=2)
        self.blocks = nn.Sequential(
            OrderedDict((name, ResidualBlock(c_in, c_out, down)) for name, c_in, c_out, down in _BLOCKS)
        )
        self.fc = nn.Linear(256, DESCRIPTOR_SIZE, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        """Return (B, 128) descriptors of (B, 3, 150, 150) aligned RGB faces in [0, 1]."""
        features = functional.relu(self.conv32_down((chips * 255.0 - self.mean_rgb) / _INPUT_SCALE))
        features = self.blocks(functional.max_pool2d(features, 3, 2))
        return self.fc(features.mean(dim=(2, 3)))


def _add_padded(first: Tensor, second: Tensor) -> Tensor:
    """Add (B, C, H, W) batches after zero-padding both to the larger C, H and W."""
    shape = [max(sizes) for sizes in zip(first.shape, second.shape, strict=True)]
    return _pad_to(first, shape) + _pad_to(second, shape)


def _pad_to(features: Tensor, shape: list[int]) -> Tensor:
    _, channels, rows, columns = (size - have for size, have in zip(shape, features.shape, strict=True))
    return functional.pad(features, (0, columns, 0, rows, 0, channels))
