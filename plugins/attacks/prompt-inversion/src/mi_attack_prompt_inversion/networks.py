"""The adversary's decoder of prompts, after a prefix that either kind of evidence becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mi_attack_prompt_inversion.features import Features
from mi_text.adapter import pad
from mi_text.decoder import Decoder
from mi_text.tokenizing import PAD_ID, UNKNOWN_ID
from mi_text.transformer import Size, Transformer


class AnswerInverter(nn.Module):
    """Writes prompts after the features of a next-token distribution (N, d)."""

    def __init__(self, size: Size, features: Features, places: int) -> None:
        super().__init__()
        self.features = features
        self.decoder = Decoder(size, features.conditions(places))

    def prefix(self, features: Tensor) -> Tensor:
        """Return the prefix (N, places, width)."""
        return self.decoder.prefix(self.features.values(features))


class OutputInverter(nn.Module):
    """Writes prompts after outputs, ids (N, k, L): each is encoded by itself and read by a few learned queries.

    What the queries find of all outputs, one after the other, is the prefix (N, k * places, width). Padding is never
    attended to.
    """

    def __init__(self, size: Size, encoder: Size, places: int) -> None:
        super().__init__()
        self.encoder = Transformer(encoder, causal=False)
        self.queries = nn.Parameter(torch.randn(places, encoder.width) * encoder.width**-0.5)
        self.decoder = Decoder(size, {})

    def prefix(self, outputs: Tensor) -> Tensor:
        """Return the prefix."""
        n, k, length = outputs.shape
        ids = outputs.reshape(n * k, length)
        seen = ids != PAD_ID
        states, _ = self.encoder(self.encoder.embed(ids), visible=seen)
        attention = (states @ self.queries.T).masked_fill(~seen[:, :, None], -torch.inf).softmax(dim=1)
        read = attention.transpose(1, 2) @ states
        prefix: Tensor = read.reshape(n, k * read.shape[1], -1)
        return prefix


Inverter = AnswerInverter | OutputInverter


def encoded(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Return the ids of texts, cut; none is empty."""
    return [item.ids[:longest] or [UNKNOWN_ID] for item in tokenizer.encode_batch(list(texts))]


def output_ids(tokenizer: Tokenizer, outputs: Sequence[Sequence[str]], longest: int) -> Tensor:
    """Return outputs as ids, int64 (N, k, longest): every row has as many outputs."""
    rows = encoded(tokenizer, [text for group in outputs for text in group], longest)
    return pad(rows, PAD_ID, longest).reshape(len(outputs), -1, longest)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a network's parameters on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def sizes(state: Mapping[str, Any]) -> tuple[Size, Size]:
    """Return the sizes of decoder and encoder from plain data."""
    common = {"vocabulary": state["vocabulary"], "width": state["width"], "heads": state["heads"]}
    return (
        Size(**common, tokens=state["prefix"] + state["max_tokens"] + 1, layers=state["layers"]),
        Size(**common, tokens=state["output_tokens"], layers=state["encoder_layers"]),
    )
