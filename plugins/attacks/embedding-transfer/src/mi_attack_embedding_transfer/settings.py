"""The options of the attack, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from micore.contracts import Config


class EmbeddingTransferConfig(Config):
    """Settings of the attack; the defaults are for a CPU."""

    method: Literal["align", "search"] = Field(
        "align", description="align: a map learned from few pairs, and a decoder; search: a language model and queries"
    )
    public: int | None = Field(20_000, ge=1, description="public texts that the network learns from; None: all")
    pairs: int = Field(1000, ge=1, description="align: public texts whose embeddings are known (paper: 1 to 1000)")
    penalties: tuple[float, ...] = Field(
        (1e-3, 1e-2, 0.1, 1.0, 10.0), min_length=1, description="align: ridge penalties to choose from (code: these)"
    )
    vocabulary: int = Field(2048, ge=262, description="tokens of the adversary's tokenizer")
    max_tokens: int = Field(32, ge=1, description="tokens of a text at most (ALGEN: 32)")
    width: int = Field(192, ge=1, description="width of the network")
    layers: int = Field(3, ge=1, description="its layers")
    heads: int = Field(4, ge=1, description="its attention heads; must divide the width")
    steps: int = Field(2000, ge=1, description="steps of its training")
    batch_size: int = Field(64, ge=1, description="texts of a step (ALGEN's example: 64)")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW (ALGEN: 1e-4)")
    smoothing: float = Field(0.02, ge=0, lt=1, description="of the labels in training")
    places: int = Field(4, ge=1, description="align: vectors that an embedding becomes (ALGEN: 32)")
    noise: float = Field(0.5, ge=0, description="align: of the embeddings in training, in mean deviations")
    own_width: int = Field(256, ge=1, description="dimensions of the adversary's own encoder")
    buckets: int = Field(16_384, ge=1, description="of the hash of words and pairs of words")
    pair_weight: float = Field(0.5, ge=0, description="of pairs of words beside single ones in the own encoder")
    candidates: int = Field(8, ge=0, description="align: texts sampled besides the greedy one")
    temperature: float = Field(0.7, gt=0, description="of what is sampled")
    beam: int = Field(10, ge=1, description="search: texts that go on, and that are given back (ZSInvert: 30)")
    top_k: int = Field(10, ge=1, description="search: tokens proposed for each (ZSInvert: 30)")
    search_steps: int = Field(24, ge=1, description="search: tokens of a text at most (ZSInvert: 32)")
    sweeps: int = Field(1, ge=0, description="search: rounds of substitutions at the end")
    repetition_penalty: float = Field(1.0, ge=1, description="search: of tokens that stand there (ZSInvert: 1.5)")

    @model_validator(mode="after")
    def _fits(self) -> EmbeddingTransferConfig:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        if self.search_steps > self.max_tokens:
            raise ValueError(f"search_steps={self.search_steps} is more than max_tokens={self.max_tokens}")
        if min(self.penalties) < 0:
            raise ValueError("penalties must be at least 0")
        return self


DECODING_FIELDS = frozenset(
    {"candidates", "temperature", "beam", "top_k", "search_steps", "sweeps", "repetition_penalty"}
)
"""Options that nothing prepared depends on."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "smoke": {
        "vocabulary": 400, "max_tokens": 6, "width": 48, "layers": 1, "heads": 2, "steps": 150, "batch_size": 32,
        "learning_rate": 1e-2, "own_width": 64, "buckets": 1024, "pair_weight": 0.0, "places": 1, "noise": 0.2,
        "pairs": 256, "candidates": 2, "beam": 4, "top_k": 16, "search_steps": 4,
    },
    "paper": {
        "public": None, "vocabulary": 30_000, "width": 512, "layers": 6, "heads": 8, "steps": 100_000,
        "learning_rate": 1e-4, "places": 32, "own_width": 512, "candidates": 3, "beam": 30, "top_k": 30,
        "search_steps": 32, "repetition_penalty": 1.5,
    },
}  # fmt: skip
