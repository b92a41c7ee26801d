"""A small transformer over tokens: causal or bidirectional, after a prefix of vectors or none, with a key-value cache.

Pre-normalised blocks, learned positions, tied embeddings: the shape of GPT-2 (Radford et al., 2019) in miniature. All
language models here, the targets' and the adversary's, are this network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a transformer is: ``width`` must be a multiple of ``heads``; ``tokens``: the longest sequence."""

    vocabulary: int
    tokens: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "tokens", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ModelError(f"a transformer's {name} must be at least 1, not {getattr(self, name)}")
        if self.width % self.heads:
            raise ModelError(f"width {self.width} is no multiple of {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must lie in [0, 1), not {self.dropout}")


class TokenEmbedding(nn.Embedding):
    """Vectors of ids (N, T), and of relaxed tokens, distributions over the vocabulary (N, T, V)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the vectors (N, T, width)."""
        return tokens @ self.weight if tokens.is_floating_point() else super().forward(tokens)


@dataclass(slots=True)
class Cache:
    """Keys and values of the positions so far, for each layer (N, heads, T, width of a head)."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """How many positions are kept."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def picked(self, rows: Tensor) -> Cache:
        """Return the cache of some rows, in this order."""
        return Cache([(keys[rows], values[rows]) for keys, values in self.layers])


class Block(nn.Module):
    """Attention, then a perceptron, each added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, self.dropout = size.heads, size.dropout
        self.before_attention = nn.LayerNorm(size.width)
        self.queries_keys_values = nn.Linear(size.width, 3 * size.width)
        self.attended = nn.Linear(size.width, size.width)
        self.before_perceptron = nn.LayerNorm(size.width)
        self.perceptron = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width)
        )
        self.drop = nn.Dropout(size.dropout)

    def forward(
        self, states: Tensor, mask: Tensor | None, causal: bool, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the states (N, T, width) and the keys and values of all positions so far."""
        n, length, width = states.shape
        parts = self.queries_keys_values(self.before_attention(states)).view(n, length, 3, self.heads, -1)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        found = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal and mask is None,
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        states = states + self.drop(self.attended(found.transpose(1, 2).reshape(n, length, width)))
        states = states + self.drop(self.perceptron(self.before_perceptron(states)))
        return states, (keys, values)


class Transformer(nn.Module):
    """Token embeddings to states; ``logits`` reads the states with the same embeddings."""

    def __init__(self, size: Size, *, causal: bool = True) -> None:
        super().__init__()
        self.size, self.causal = size, causal
        self.tokens = TokenEmbedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.tokens, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.last = nn.LayerNorm(size.width)
        self._start()

    def _start(self) -> None:
        """Draw the parameters as GPT-2 does: N(0, 0.02), smaller where many layers add up."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = 0.02 / math.sqrt(2 * self.size.layers) if "attended" in name or "perceptron.2" in name else 0.02
                nn.init.normal_(parameter, std=scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the vectors (N, T, width) of ids (N, T) or of relaxed tokens, distributions (N, T, V)."""
        embedded: Tensor = self.tokens(tokens)
        return embedded

    def forward(
        self, vectors: Tensor, *, visible: Tensor | None = None, cache: Cache | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """Return states (N, T, width) of input vectors (N, T, width), and the cache with these positions.

        visible: bool (N, T of cache and input), False for positions that nobody attends to, such as padding; None: all.
        positions: int64 (T,) or (N, T), None: counted on from the cache.
        """
        length = vectors.shape[1]
        before = cache.length if cache is not None else 0
        if before + length > self.size.tokens and positions is None:
            raise ModelError(f"{before + length} positions; this network has {self.size.tokens}")
        if positions is None:
            positions = torch.arange(before, before + length, device=vectors.device)
        states = vectors + self.positions(positions)
        mask = self._mask(length, before, visible, vectors.device)
        causal = self.causal and mask is None and length > 1
        kept = Cache()
        for index, block in enumerate(self.blocks):
            states, present = block(states, mask, causal, cache.layers[index] if cache is not None else None)
            kept.layers.append(present)
        return self.last(states), kept

    def _mask(self, length: int, before: int, visible: Tensor | None, device: torch.device) -> Tensor | None:
        """Return what may be attended to, bool (N or 1, 1, T, T of all), None where nothing needs saying."""
        if visible is None and (before == 0 or length == 1):
            return None
        allowed = torch.ones(length, before + length, dtype=torch.bool, device=device)
        if self.causal:
            allowed = allowed.tril(diagonal=before)
        if visible is None:
            return allowed[None, None]
        mask = allowed[None, None] & visible[:, None, None, :]
        # a row that may see nothing would give no numbers: padding looks at itself
        itself = torch.eye(length, dtype=torch.bool, device=device)
        own = functional.pad(itself, (before, 0))
        return mask | own[None, None]

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of the vocabulary, (..., V), float32."""
        return functional.linear(states, self.tokens.weight).float()
