"""Small classifiers of texts, as targets and as judges of each other's inversions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mi_text.tokenizing import PAD_ID
from mi_text.transformer import Size, TokenEmbedding, Transformer


class TransformerClassifier(nn.Module):
    """A bidirectional transformer whose mean state is read by one linear layer.

    Inputs: ids (N, T), padded, or relaxed texts, distributions of tokens (N, T, V), which are taken as full.
    """

    def __init__(self, n_classes: int, size: Size) -> None:
        super().__init__()
        self.network = Transformer(size, causal=False)
        self.head = nn.Linear(size.width, n_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        visible = seen(inputs)
        states, _ = self.network(self.network.embed(inputs), visible=visible)
        logits: Tensor = self.head(pooled(states, visible))
        return logits


class ConvolutionalClassifier(nn.Module):
    """Convolutions over 2, 3 and 4 tokens, each reduced to its maximum (Kim, EMNLP 2014)."""

    def __init__(self, n_classes: int, vocabulary: int, width: int = 128, filters: int = 64) -> None:
        super().__init__()
        self.tokens = TokenEmbedding(vocabulary, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, size, padding=size - 1) for size in (2, 3, 4))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(3 * filters, n_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, classes) of ids (N, T) or relaxed texts (N, T, V)."""
        vectors = self.tokens(inputs) * seen(inputs)[:, :, None]
        found = [layer(vectors.transpose(1, 2)).relu().amax(dim=2) for layer in self.convolutions]
        logits: Tensor = self.head(self.drop(torch.cat(found, dim=1)))
        return logits


def seen(inputs: Tensor) -> Tensor:
    """Return which positions hold a token, bool (N, T); the first always does."""
    if inputs.is_floating_point():
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    visible = inputs != PAD_ID
    visible[:, 0] = True
    return visible


def pooled(states: Tensor, visible: Tensor) -> Tensor:
    """Return the mean of the visible states, (N, width)."""
    weights = visible[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
