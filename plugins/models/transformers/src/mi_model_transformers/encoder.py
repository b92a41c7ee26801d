"""Sentence encoders: one vector of length 1 for each text."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.inputs import InputSpec

Pooling = Literal["mean", "cls"]


class SentenceEncoder(nn.Module):
    """A transformer of which the states of a text are pooled and scaled to length 1.

    Inputs: ids int64 (N, T), padded at the end, or relaxed texts, distributions of tokens (N, T, V), which are taken
    as full. ``forward`` and ``answer``: embeddings, float32 (N, d), differentiable in relaxed texts.

    network: a transformers model with ``last_hidden_state``; pooling: the mean over the tokens (Reimers and Gurevych,
    EMNLP 2019, section 3), or the first one.
    """

    comes_trained = True

    def __init__(self, network: Any, own_input: InputSpec, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.network = network
        self.own_input = own_input
        self.pooling = pooling

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the embedding of each text, (N, d)."""
        visible = seen(inputs, int(self.own_input.options["pad_id"]))
        states = self.network(**offered(self.network, inputs, visible)).last_hidden_state.float()
        vectors = states[:, 0] if self.pooling == "cls" else _mean(states, visible)
        return functional.normalize(vectors, dim=1)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the embedding of each text, (N, d)."""
        embeddings: Tensor = self(inputs)
        return embeddings


def seen(inputs: Tensor, pad_id: int) -> Tensor:
    """Return which positions hold a token, bool (N, T): all before the padding, and always the first."""
    if inputs.is_floating_point():
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    visible = (inputs != pad_id).flip(1).cummax(dim=1).values.flip(1)
    visible[:, 0] = True
    return visible


def offered(network: Any, inputs: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Return what a transformers model is called with for ids (N, T) or relaxed texts (N, T, V)."""
    mask = visible.long()
    if not inputs.is_floating_point():
        return {"input_ids": inputs, "attention_mask": mask}
    matrix = network.get_input_embeddings().weight
    return {"inputs_embeds": inputs.to(matrix.dtype) @ matrix[: inputs.shape[2]], "attention_mask": mask}


def _mean(states: Tensor, visible: Tensor) -> Tensor:
    weights = visible[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
