"""From texts to what a model takes: rows of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_text.tokenizing import PAD_ID, TOKENIZER, tokenizer_of
from micore.errors import ModelError
from micore.inputs import InputSpec

ROUNDED = 8
"""Rows are padded to a multiple of this many tokens, so that there are few different widths."""

UNTOKENIZED = "untokenized"
"""The option of an `InputSpec` that says: the model takes texts as they are (it is somewhere else)."""


@dataclass(frozen=True)
class TextAdapter:
    """Convert texts to token ids, int64 (N, T), padded at the end; what is too long is cut at the end.

    T is at most ``spec.shape[0]``. Samples that are tensors pass: ids int64 (N, T), and relaxed texts, distributions
    of tokens, float (N, T, V), through which gradients flow. A model that is somewhere else is given the texts.

    Raises: ModelError when the spec is not that of a model of texts.
    """

    spec: InputSpec

    def __post_init__(self) -> None:
        if len(self.spec.shape) != 1 or self.spec.shape[0] < 1:
            raise ModelError(f"a model of texts takes (tokens,), not inputs of shape {self.spec.shape}")
        if UNTOKENIZED not in self.spec.options and TOKENIZER not in self.spec.options:
            raise ModelError("the input spec has no tokenizer: this is no model of texts")

    def __call__(self, samples: Sequence[str] | Tensor) -> Tensor:
        """Return the input of the model, on the CPU unless it was given as a tensor."""
        if isinstance(samples, Tensor):
            return samples
        if UNTOKENIZED in self.spec.options:
            return list(samples)  # type: ignore[return-value]
        return pad(self.encode(samples), int(self.spec.options.get("pad_id", PAD_ID)))

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return tokenizer_of(self.spec).get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without padding, cut to what the model takes."""
        tokenizer, longest = tokenizer_of(self.spec), self.spec.shape[0]
        return [self._cut(item.ids, longest) for item in tokenizer.encode_batch(list(texts))]

    def _cut(self, ids: list[int], longest: int) -> list[int]:
        """Cut ids; the token that ends every text of some tokenizers stays the last one."""
        closing = self.spec.options.get("closing_id")
        if len(ids) <= longest or closing is None:
            return ids[:longest]
        return [*ids[: longest - 1], int(closing)]


def pad(rows: Sequence[Sequence[int]], pad_id: int = PAD_ID, width: int | None = None) -> Tensor:
    """Return rows of ids as one tensor, int64 (N, T); T: ``width``, or the longest row's, rounded up."""
    longest = max((len(row) for row in rows), default=1) or 1
    wide = width or -(-longest // ROUNDED) * ROUNDED
    padded = [[*row, *[pad_id] * (wide - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(padded), wide)
