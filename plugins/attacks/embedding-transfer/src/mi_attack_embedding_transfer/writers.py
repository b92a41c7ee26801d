"""What the adversary learns without the target: a decoder of its own embeddings, and a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mi_attack_embedding_transfer.own_encoder import OwnEncoder, fit_encoder, restore_encoder
from mi_text.adapter import pad
from mi_text.decoder import Decoder, standardised, statistics_of
from mi_text.sampling import Sampling
from mi_text.steps import StepPlan, train_steps
from mi_text.tokenizing import BEGIN_ID, decode, text_input, tokenizer_of, train_tokenizer
from mi_text.transformer import Size
from micore.kit.case_rows import tiled
from micore.runtime import Runtime, derive_seed

EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a network that writes is made and trained; the fields are those of the attack's config.

    places: vectors that an embedding becomes in front of the text; 0: a language model, which is given none.
    """

    vocabulary: int
    max_tokens: int
    width: int
    layers: int
    heads: int
    plan: StepPlan
    smoothing: float
    places: int
    noise: float
    own_width: int
    buckets: int
    pair_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A trained network with its tokenizer; ``encoder`` and ``statistics`` of the embeddings that it decodes."""

    network: Decoder
    tokenizer: Tokenizer
    max_tokens: int
    encoder: OwnEncoder
    statistics: list[Tensor]

    def write(self, own: Tensor | None, uniform: Tensor, temperature: float, runtime: Runtime) -> list[str]:
        """Return a text for each row of embeddings of one's own (N, width), or without any.

        uniform: numbers in [0, 1), (N, max_tokens), each row's own: they draw its tokens.
        """
        sampling = Sampling(max_tokens=self.max_tokens, temperature=temperature)

        def tile(numbers: Tensor, *vectors: Tensor) -> Tensor:
            return self.network.write(_prefix(self.network, len(numbers), vectors), sampling, numbers.T)[0]

        vectors = [] if own is None else [standardised(own, self.statistics).to(runtime.device)]
        return decode(self.tokenizer, tiled(tile, runtime.tile, uniform.to(runtime.device), *vectors).tolist())


def train_writer(texts: Sequence[str], writing: Writing, runtime: Runtime) -> dict[str, Any]:
    """Train a network on public texts, and on the adversary's own embeddings of them; return all as plain data."""
    tokenizer = train_tokenizer(texts, writing.vocabulary)
    encoder = fit_encoder(
        texts, writing.own_width, writing.buckets, writing.pair_weight, derive_seed(runtime.seed, "own-encoder")
    )
    own = restore_encoder(encoder)(texts)
    statistics = statistics_of(own)
    vectors = standardised(own, statistics).to(runtime.device) if writing.places else None
    spec = text_input(tokenizer, writing.max_tokens)
    ids = [item.ids[: writing.max_tokens] for item in tokenizer_of(spec).encode_batch(list(texts))]
    network = _build(writing, tokenizer_of(spec).get_vocab_size(), runtime)

    def losses(rows: Tensor) -> Tensor:
        given = () if vectors is None else (_noisy(vectors[rows.to(runtime.device)], writing.noise),)
        tokens = pad([ids[row] for row in rows.tolist()]).to(runtime.device)[:, : writing.max_tokens]
        return network.losses(_prefix(network, len(rows), given), tokens, writing.smoothing)

    history = train_steps(network, losses, [len(row) for row in ids], writing.plan, runtime, "writer")
    return {
        "network": {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()},
        "tokenizer": tokenizer, "encoder": encoder, "statistics": statistics, "history": history,
    }  # fmt: skip


def restore_writer(state: Mapping[str, Any], writing: Writing, runtime: Runtime) -> Writer:
    """Build what `train_writer` made with the same settings."""
    tokenizer = tokenizer_of(text_input(state["tokenizer"], writing.max_tokens))
    network = _build(writing, tokenizer.get_vocab_size(), runtime)
    network.load_state_dict(state["network"])
    return Writer(
        network=network.eval().requires_grad_(False), tokenizer=tokenizer, max_tokens=writing.max_tokens,
        encoder=restore_encoder(state["encoder"]), statistics=[tensor.cpu() for tensor in state["statistics"]],
    )  # fmt: skip


def _build(writing: Writing, vocabulary: int, runtime: Runtime) -> Decoder:
    size = Size(
        vocabulary=vocabulary, tokens=max(writing.places, 1) + writing.max_tokens, width=writing.width,
        layers=writing.layers, heads=writing.heads,
    )  # fmt: skip
    conditions = {EMBEDDING: (writing.own_width, writing.places)} if writing.places else {}
    with runtime.seeded("writer", "parameters"):
        network = Decoder(size, conditions)
    return runtime.place(network)


def _prefix(network: Decoder, n: int, vectors: Sequence[Tensor]) -> Tensor:
    """Return what stands in front of n texts: their embeddings, or the beginning alone."""
    if vectors:
        return network.prefix({EMBEDDING: vectors[0]})
    begin = torch.full((n, 1), BEGIN_ID, device=network.network.tokens.weight.device)
    return network.prefix({}, context=begin)


def _noisy(vectors: Tensor, noise: float) -> Tensor:
    """Add noise, drawn from the global generators, which a training seeds."""
    return vectors + noise * torch.randn_like(vectors) if noise else vectors
