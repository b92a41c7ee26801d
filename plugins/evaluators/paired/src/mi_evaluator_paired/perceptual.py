"""LPIPS: likeness in the features of a network that learned to see, with weights of the user's.

Source: Zhang, Isola, Efros, Shechtman, Wang (CVPR 2018), version 0.1, as torchmetrics computes it, which also carries
the linear weights of each layer. The network's own weights (ImageNet) are in no package and are not downloaded. With
random ones the figure would still be a number, and nothing would show that it means little: so there is none without a
file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from micore.errors import ModelError
from micore.files import file_digest
from micore.importing import read_weights

Backbone = Literal["alex", "vgg"]
BATCH = 32
EPSILON = 1e-8
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of images in [-1, 1], per channel."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution of torchvision's ``features``; pool: the window before it; tap: whether LPIPS compares here."""

    index: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = True


ALEX = (
    Layer(0, 64, kernel=11, stride=4, padding=2), Layer(3, 192, kernel=5, padding=2, pool=3), Layer(6, 384, pool=3),
    Layer(8, 256), Layer(10, 256),
)  # fmt: skip
VGG = tuple(
    Layer(index, channels, pool=2 if first and index else 0, tap=last)
    for channels, indices in (
        (64, (0, 2)),
        (128, (5, 7)),
        (256, (10, 12, 14)),
        (512, (17, 19, 21)),
        (512, (24, 26, 28)),
    )
    for index, first, last in ((index, index == indices[0], index == indices[-1]) for index in indices)
)
LAYERS: Mapping[str, tuple[Layer, ...]] = {"alex": ALEX, "vgg": VGG}
SMALLEST: Mapping[str, int] = {"alex": 31, "vgg": 16}
"""Pixels a side below which a network has nothing left to compare."""
PUBLISHED: Mapping[str, tuple[str, str]] = {"alex": ("AlexNet", "7be5be79"), "vgg": ("VGG-16", "397923af")}
"""The names, and how the SHA-256 of torchvision's published files begins (it is in their names)."""


class Perceptual:
    """LPIPS with one file of weights."""

    def __init__(self, path: Path, net: Backbone, device: torch.device) -> None:
        """Read the weights of torchvision's AlexNet or VGG-16: safetensors, or a file of ``torch.save``.

        Raises: ModelError when they cannot be read or are those of another network.
        """
        self.net, self.smallest = net, SMALLEST[net]
        state, heads = read_weights(path), _heads(net)
        self._weights = [_convolution(state, layer, path, net) for layer in LAYERS[net]]
        self._weights = [(weight.to(device), bias.to(device)) for weight, bias in self._weights]
        self._heads = [head.to(device) for head in heads]
        self.digest = file_digest(path)

    @property
    def note(self) -> str:
        """Say whose weights these are."""
        name, begins = PUBLISHED[self.net]
        if self.digest.startswith(begins):
            return f"LPIPS 0.1 with torchvision's published {name}"
        return f"LPIPS 0.1 with {name} of SHA-256 {self.digest[:12]}: not torchvision's published file"

    @torch.no_grad()
    def distances(self, images: Tensor, truth: Tensor) -> Tensor:
        """Return the distance of each pair, (N,), of (N, 1 or 3, H, W) in [0, 1]; NaN where they are too small."""
        if min(images.shape[-2:]) < self.smallest:
            return torch.full((len(images),), torch.nan, dtype=torch.float64)
        parts = zip(images.split(BATCH), truth.split(BATCH), strict=True)
        return torch.cat([self._compared(one, other).double().cpu() for one, other in parts])

    def _compared(self, one: Tensor, other: Tensor) -> Tensor:
        found = torch.zeros(len(one), device=self._heads[0].device)
        for mine, theirs, head in zip(self._features(one), self._features(other), self._heads, strict=True):
            difference = (_unit(mine) - _unit(theirs)).square()
            found = found + (difference * head).sum(dim=1).mean(dim=(1, 2))
        return found

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        device = self._heads[0].device
        shift, scale = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        found = (2 * images.float().to(device).expand(-1, 3, -1, -1) - 1 - shift) / scale
        for layer, (weight, bias) in zip(LAYERS[self.net], self._weights, strict=True):
            if layer.pool:
                found = max_pool2d(found, layer.pool, stride=2)
            found = conv2d(found, weight, bias, stride=layer.stride, padding=layer.padding).relu()
            if layer.tap:
                yield found


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()


def _heads(net: Backbone) -> list[Tensor]:
    """Return what each channel of each compared layer counts, (1, C, 1, 1): the weights that torchmetrics carries."""
    with as_file(files("torchmetrics") / "functional" / "image" / "lpips_models" / f"{net}.pth") as path:
        state = read_weights(path)
    return [state[f"lin{index}.model.1.weight"] for index in range(sum(layer.tap for layer in LAYERS[net]))]


def _convolution(state: Mapping[str, Tensor], layer: Layer, path: Path, net: Backbone) -> tuple[Tensor, Tensor]:
    weight, bias = (state.get(f"features.{layer.index}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or weight.shape[0] != layer.channels or weight.shape[-1] != layer.kernel:
        raise ModelError(
            f"paired: {path} holds no weights of torchvision's {PUBLISHED[net][0]} (features.{layer.index})",
            hint="lpips_net=vgg for VGG-16, alex for AlexNet; the file is a state dict of torchvision's",
        )
    return weight.float(), bias.float()
