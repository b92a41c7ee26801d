"""Image classifiers: targets and evaluator models for pictures of 28 to 256 px.

Every network here follows one contract, so that attacks, defenses and evaluators need not know which one they
hold:

- ``Network(n_classes, channels=3, size=64, **architecture arguments)``;
- ``forward(images) -> logits``, (B, channels, size, size) to (B, n_classes);
- ``features(images) -> (B, n_features)``, the penultimate representation;
- ``head``, the last ``nn.Linear``, with ``forward(images) == head(features(images))``;
- ``stages``, the parts between which a defense may read or change activations.

Images arrive normalised as the model's InputSpec says; no network scales them again. All of them hold batch
normalisation: run them in ``eval()`` when they are attacked or judge, or the statistics of the batch leak
into the result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["ImageClassifier", "ResNet18", "SmallCnn", "SmallResNet", "Vgg16Bn"]


class ImageClassifier(nn.Module, ABC):
    """Base of the classifiers: checks the input, splits the network into features and a linear head.

    Args:
        n_classes: number of classes, at least 1.
        channels: colour channels of the images.
        size: height and width of the images in pixels.

    Raises:
        ValueError: the number of classes or of channels is below 1, or the size is below ``min_size``.
    """

    min_size: ClassVar[int] = 16
    fixed_size: ClassVar[bool] = False
    """True where the head needs pictures of ``size``; the others pool and take any from ``min_size``."""

    head: nn.Linear
    stages: nn.Sequential
    n_features: int

    def __init__(self, n_classes: int, channels: int = 3, size: int = 64) -> None:
        super().__init__()
        name = type(self).__name__
        if n_classes < 1 or channels < 1:
            raise ValueError(f"{name}: n_classes={n_classes}, channels={channels}; both must be at least 1")
        if size < self.min_size:
            raise ValueError(f"{name}: size={size} is too small; resize the images to at least {self.min_size} px")
        self.n_classes, self.channels, self.size = n_classes, channels, size

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Compute the penultimate representation (B, n_features) of checked images."""

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate representation (B, n_features) of ``images`` (B, channels, size, size)."""
        self._check(images)
        return self.extract(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) of ``images`` (B, channels, size, size)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def _check(self, images: Tensor) -> None:
        name, shape = type(self).__name__, tuple(images.shape)
        if images.ndim != 4 or shape[1] != self.channels:
            raise ValueError(f"{name}: images of shape {shape}; expected (B, {self.channels}, height, width)")
        if self.fixed_size and shape[2:] != (self.size, self.size):
            raise ValueError(
                f"{name}: images of {shape[2]}x{shape[3]} px; it was built for {self.size} px: "
                f"resize them, or build it with size={shape[2]}"
            )
        if min(shape[2:]) < self.min_size:
            raise ValueError(f"{name}: images of {shape[2]}x{shape[3]} px; resize to at least {self.min_size} px")


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Build a 3x3 convolution without bias that keeps the size (or halves it, rounding up)."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _init_kaiming(module: nn.Module) -> None:
    """Draw convolution weights from He et al.'s normal distribution (ICCV 2015, eq. 10, backward form)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class SmallCnn(ImageClassifier):
    """Four plain convolution stages and global average pooling: a target that trains in seconds on a CPU.

    Each stage is Conv3x3, BN, ReLU, 2x2 max-pool; widths w, 2w, 4w, 4w. Made for 28 to 64 px.

    Args:
        n_classes, channels, size: see ``ImageClassifier``.
        width: channels of the first stage.
    """

    def __init__(self, n_classes: int, channels: int = 3, size: int = 64, width: int = 24) -> None:
        super().__init__(n_classes, channels, size)
        widths = (channels, width, 2 * width, 4 * width, 4 * width)
        self.stages = nn.Sequential(*map(self._stage, widths[:-1], widths[1:]))
        self.n_features = widths[-1]
        self.head = nn.Linear(self.n_features, n_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_conv3(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))

    def extract(self, images: Tensor) -> Tensor:
        """Average the last maps: (B, 4 * width)."""
        pooled: Tensor = self.stages(images).mean(dim=(2, 3))
        return pooled


class BasicBlock(nn.Module):
    """Two-convolution residual block (He et al., CVPR 2016, figure 5 left): relu(residual(x) + shortcut(x)).

    The shortcut is a projection (Conv1x1, BN) where size or width changes (option B), otherwise the identity.
    It is a module in either case, so that a defense can replace it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv3(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, n, n) to (B, outputs, ceil(n / stride), ceil(n / stride))."""
        return torch.relu(self.residual(maps) + self.shortcut(maps))


class ResNet18(ImageClassifier):
    """ResNet-18 (He et al., CVPR 2016, table 1), with a stem that suits the size of the picture.

    Up to 64 px the stem is one 3x3 convolution without pooling, as in the paper's section 4.2 for CIFAR;
    above that it is the original 7x7 stride 2 convolution and 3x3 max-pool. Features: 8w (512) globally
    averaged maps.

    Args:
        n_classes, channels, size: see ``ImageClassifier``.
        width: channels of the stem and the first stage (64 in the paper).
    """

    def __init__(self, n_classes: int, channels: int = 3, size: int = 64, width: int = 64) -> None:
        super().__init__(n_classes, channels, size)
        small = size <= 64
        conv = _conv3(channels, width) if small else nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        pool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), pool)
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.stages = nn.Sequential(
            self._stage(width, widths[0], 1), *(self._stage(a, b, 2) for a, b in pairwise(widths))
        )
        self.n_features = widths[-1]
        self.head = nn.Linear(self.n_features, n_classes)
        _init_kaiming(self)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))

    def extract(self, images: Tensor) -> Tensor:
        """Average the last maps: (B, 8 * width)."""
        pooled: Tensor = self.stages(self.stem(images)).mean(dim=(2, 3))
        return pooled


class Vgg16Bn(ImageClassifier):
    """VGG-16 (Simonyan & Zisserman, ICLR 2015, table 1 D) with batch normalisation, as in the GMI line.

    Thirteen Conv3x3-BN-ReLU layers and five 2x2 max-pools; then, as in the targets of GMI (Zhang et al., CVPR
    2020) and its successors, flatten, BN1d whose bias stays frozen at zero, Linear. Features are what the
    batch normalisation gives (2048 at 64 px). Keep ``neck.bias`` frozen when training.

    Args:
        n_classes, channels, size: see ``ImageClassifier``; at least 32 px.
        width: channels of the first block (64 in the paper).
    """

    min_size: ClassVar[int] = 32
    fixed_size: ClassVar[bool] = True
    blocks: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
    """Widths of the convolutions in each block, in multiples of ``width``."""

    def __init__(self, n_classes: int, channels: int = 3, size: int = 64, width: int = 64) -> None:
        super().__init__(n_classes, channels, size)
        stages, inputs = [], channels
        for block in self.blocks:
            layers: list[nn.Module] = []
            for multiple in block:
                outputs = multiple * width
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.stages = nn.Sequential(*stages)
        self.n_features = inputs * (size // 2 ** len(self.blocks)) ** 2
        self.neck = nn.BatchNorm1d(self.n_features)
        self.neck.bias.requires_grad_(False)
        self.head = nn.Linear(self.n_features, n_classes)
        _init_kaiming(self)

    def extract(self, images: Tensor) -> Tensor:
        """Normalise the flattened last maps: (B, 8 * width * (size // 32)^2)."""
        normalised: Tensor = self.neck(self.stages(images).flatten(1))
        return normalised


class PreActivationBlock(nn.Module):
    """Residual block with BN and activation before each convolution (He et al., ECCV 2016, figure 1b)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.SiLU(),
            _conv3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            _conv3(outputs, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, n, n) to (B, outputs, ceil(n / stride), ceil(n / stride))."""
        total: Tensor = self.residual(maps) + self.shortcut(maps)
        return total


class SmallResNet(ImageClassifier):
    """A compact pre-activation residual network: the default independent evaluator on a CPU.

    On purpose of another family than ``SmallCnn``, so that what fools the target need not fool its judge:
    residual blocks with strided convolutions instead of a plain stack with max-pools, and SiLU instead of
    ReLU. Three stages of widths w, 2w, 4w (the CIFAR layout of He et al., CVPR 2016, section 4.2); from 24
    px on the stem halves the picture first.

    Args:
        n_classes, channels, size: see ``ImageClassifier``.
        width: channels of the stem and the first stage.
        depth: residual blocks per stage.

    Raises:
        ValueError: ``depth`` is below 1.
    """

    def __init__(self, n_classes: int, channels: int = 3, size: int = 64, width: int = 24, depth: int = 1) -> None:
        super().__init__(n_classes, channels, size)
        if depth < 1:
            raise ValueError(f"SmallResNet: depth={depth}; give at least one residual block per stage")
        self.stem = _conv3(channels, width, stride=1 if size < 24 else 2)
        widths = (width, width, 2 * width, 4 * width)
        self.stages = nn.Sequential(*(self._stage(widths[i], widths[i + 1], 1 + (i > 0), depth) for i in range(3)))
        self.n_features = widths[-1]
        self.tail = nn.Sequential(nn.BatchNorm2d(self.n_features), nn.SiLU())
        self.head = nn.Linear(self.n_features, n_classes)
        _init_kaiming(self)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, depth: int) -> nn.Sequential:
        rest = (PreActivationBlock(outputs, outputs, 1) for _ in range(depth - 1))
        return nn.Sequential(PreActivationBlock(inputs, outputs, stride), *rest)

    def extract(self, images: Tensor) -> Tensor:
        """Average the normalised, activated last maps: (B, 4 * width)."""
        pooled: Tensor = self.tail(self.stages(self.stem(images))).mean(dim=(2, 3))
        return pooled
