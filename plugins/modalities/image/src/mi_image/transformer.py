"""A small transformer over convolutional tokens: a judge of another family than the convolutional networks.

After the compact convolutional transformer of Hassani et al., "Escaping the Big Data Paradigm with Compact
Transformers" (arXiv:2104.05704): convolutions make the tokens, so that a few hundred pictures suffice, and a
learned weight for each token pools the sequence (their section 3.2). Its own: sizes for 16 to 64 px on a CPU.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_image.classifiers import ImageClassifier

__all__ = ["SmallTransformer"]

HEADS = 4


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017, section 3.2) over tokens (B, T, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let every token look at all: (B, T, dim) to (B, T, dim)."""
        batch, length, dim = tokens.shape
        parts = self.inputs(tokens).view(batch, length, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*parts.unbind(0))
        mixed: Tensor = self.output(seen.transpose(1, 2).reshape(batch, length, dim))
        return mixed


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a normalisation and beside a shortcut.

    The shortcuts are modules, so that a defense can replace them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(dim), Attention(dim))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )  # fmt: skip
        self.attention_shortcut: nn.Module = nn.Identity()
        self.perceptron_shortcut: nn.Module = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T, dim) to (B, T, dim)."""
        tokens = self.attention_shortcut(tokens) + self.attention(tokens)
        mixed: Tensor = self.perceptron_shortcut(tokens) + self.perceptron(tokens)
        return mixed


class SmallTransformer(ImageClassifier):
    """Three convolution stages that make tokens, and a transformer over them.

    On purpose of another family than ``SmallCnn`` and ``SmallResNet``: its upper layers compare all places of a
    picture with each other. From 24 px on the first stage halves the picture. Trains in about a minute on a CPU.

    Args:
        n_classes, channels, size: see ``ImageClassifier``; ``size`` is that of every picture.
        width: channels of the first stage; tokens have three times as many.
        depth: transformer blocks.

    Raises:
        ValueError: ``width`` is no multiple of 4, or ``depth`` is below 1.
    """

    fixed_size: ClassVar[bool] = True

    def __init__(self, n_classes: int, channels: int = 3, size: int = 64, width: int = 24, depth: int = 2) -> None:
        super().__init__(n_classes, channels, size)
        if width % HEADS or depth < 1:
            raise ValueError(f"SmallTransformer: width={width}, depth={depth}; a multiple of {HEADS}, and at least 1")
        self.n_features = 3 * width
        stride = 1 if size < 24 else 2
        self.stages = nn.Sequential(
            self._stage(channels, width, stride),
            nn.Sequential(nn.AvgPool2d(2), self._stage(width, 2 * width)),
            nn.Sequential(nn.AvgPool2d(2), self._stage(2 * width, self.n_features)),
        )
        side = -(-size // stride) // 2 // 2
        self.places = nn.Parameter(0.02 * torch.randn(1, side * side, self.n_features))
        self.blocks = nn.Sequential(*(TransformerBlock(self.n_features) for _ in range(depth)))
        self.norm = nn.LayerNorm(self.n_features)
        self.weigh = nn.Linear(self.n_features, 1)
        self.head = nn.Linear(self.n_features, n_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.GELU())

    def extract(self, images: Tensor) -> Tensor:
        """Weigh and add up the normalised tokens: (B, 3 * width)."""
        tokens = self.stages(images).flatten(2).transpose(1, 2) + self.places
        tokens = self.norm(self.blocks(tokens))
        pooled: Tensor = (self.weigh(tokens).softmax(dim=1) * tokens).sum(dim=1)
        return pooled
