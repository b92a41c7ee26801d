"""How an endpoint is asked: the options of ``--model-option``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from micore.contracts import Config

TOKEN = "MI_TARGET_TOKEN"
"""Environment variable with the bearer token; it is never written anywhere."""


class EndpointConfig(Config):
    """Options of an endpoint. None of the last six changes what is answered, only how it is got."""

    protocol: Literal["kserve", "torchserve", "huggingface", "json", "openai"] = Field(
        "kserve", description="what is spoken; the address is that of the model, see the README"
    )
    answer: Literal["auto", "scores", "label"] = Field(
        "auto", description="what is taken from an answer; auto: scores if there are any (kserve: from the metadata)"
    )
    values: Literal["probabilities", "logits"] = Field("probabilities", description="what the scores are")
    encoding: Literal["auto", "tensor", "png"] = Field(
        "auto", description="how an image is sent; auto: tensor for kserve and json, png for the others"
    )
    output: str | None = Field(None, description="kserve: name of the output; none: the first one that fits")
    mean: list[float] = Field([], description="of the input's normalisation per channel; empty: pixels in [0, 1]")
    std: list[float] = Field([], description="of the input's normalisation per channel")
    role: Literal["encoder", "language-model"] = Field(
        "encoder", description="openai: what is asked for: embeddings, or completions and log-probabilities"
    )
    model: str | None = Field(None, description="openai: name of the model; none: the only one that is served")
    max_tokens: int = Field(128, ge=1, description="openai: tokens that a text may have")
    batch: int = Field(32, ge=1, description="samples of a request; torchserve and huggingface take one")
    concurrency: int = Field(4, ge=1, description="requests under way at a time")
    timeout: float = Field(30.0, gt=0, description="seconds that an answer may take")
    attempts: int = Field(8, ge=1, description="times that a request is sent before the run stops")
    rate: float | None = Field(None, gt=0, description="samples in a second, at most; none: no limit")
    cache: bool = Field(False, description="keep answers, and ask nothing twice; the ledger counts it all the same")


ANSWER_FIELDS = ("protocol", "answer", "values", "encoding", "output", "mean", "std", "role", "model", "max_tokens")
"""The options that are part of what a target is."""
