"""Language models that an attack asks alike: the target, and a reference of the adversary's own.

The reference is a small causal language model with a tokenizer of its own, trained on public texts alone. It tells what
any model of such texts would find likely, so that what only the target finds likely stands out; and what it recovers
without the target is an attack's control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor

from mi_text.adapter import TextAdapter
from mi_text.asking import BATCH, generate, in_order_of_length, likelihoods, parts, written
from mi_text.builders import small_gpt
from mi_text.language_model import GENERATE, LIKELIHOODS, CausalLanguageModel
from mi_text.sampling import Sampling
from mi_text.steps import StepPlan, learn_texts
from mi_text.tokenizing import text_input, train_tokenizer
from micore.contracts import Config, Split
from micore.errors import UsageError
from micore.files import digest
from micore.inputs import InputSpec
from micore.kit.stages import shared
from micore.runtime import Random, Runtime
from micore.target import Target


class LanguageModel(Protocol):
    """What attacks ask of a language model, whoever's it is."""

    def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
        """Return how each prompt goes on, without it, with the spaces in front: prompt and result are one text."""

    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the log-likelihood of each token of each text and of its end, in nats, (T + 1,), on the CPU."""


@dataclass(frozen=True)
class AskedTarget:
    """A target as a language model; each prompt and each text is one query.

    batch: how many go to the target at once. Ask about one case at a time: what others there are does not change the
    answers then.

    Raises (all methods): AccessDenied; BudgetExceeded; UsageError when the target is no language model.
    """

    target: Target
    batch: int = BATCH

    def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
        """Return how the target goes on with each prompt."""
        return generate(self.target, prompts, sampling, rng, self.batch)

    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the log-likelihoods that the target gives to the tokens of each text."""
        return likelihoods(self.target, texts, self.batch)


@dataclass(frozen=True)
class ReferenceModel:
    """A language model of the adversary's own; asking it costs no queries."""

    model: CausalLanguageModel
    spec: InputSpec
    runtime: Runtime
    batch: int = BATCH

    @torch.no_grad()
    def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
        """Return how the model goes on with each prompt."""
        found: list[str] = []
        for part in parts(prompts, self.batch):
            answers = self.model.serve(GENERATE, self._inputs(part), sampling=sampling, rng=rng)
            found += written(self.spec, answers)
        return found

    @torch.no_grad()
    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the log-likelihoods that the model gives to the tokens of each text."""
        return in_order_of_length(
            lambda part: self.model.serve(LIKELIHOODS, self._inputs(part)), self.spec, texts, self.batch
        )

    def _inputs(self, texts: Sequence[str]) -> Tensor:
        return TextAdapter(self.spec)(texts).to(self.runtime.device)


def total_log_likelihoods(model: LanguageModel, texts: Sequence[str]) -> Tensor:
    """Return the log-likelihood of each whole text, its end included, float32 (N,) in nats.

    Summed and not averaged: texts that stand against each other may have different numbers of tokens.
    """
    return torch.stack([values.double().sum() for values in model.likelihoods(texts)]).float()


def mean_log_likelihoods(model: LanguageModel, texts: Sequence[str]) -> Tensor:
    """Return the mean log-likelihood of each text's tokens and its end, float32 (N,) in nats: minus log perplexity."""
    return torch.stack([values.double().mean() for values in model.likelihoods(texts)]).float()


# training -------------------------------------------------------------------------------------------------


class ReferenceConfig(Config):
    """The settings of attacks that have a reference; the numbers are ours."""

    reference_width: int = Field(128, ge=2, description="width of the adversary's reference model")
    reference_layers: int = Field(2, ge=1, description="layers of the reference model")
    reference_heads: int = Field(4, ge=1, description="attention heads of the reference model")
    reference_vocabulary: int = Field(2048, ge=300, description="tokens of the reference model's own tokenizer")
    reference_steps: int = Field(600, ge=1, description="training steps of the reference model")
    reference_batch_size: int = Field(32, ge=1, description="texts of a training step of the reference model")
    reference_learning_rate: float = Field(2e-3, gt=0, description="of the reference model")
    reference_texts: int | None = Field(None, ge=1, description="public texts it learns from at most; none: all")


REFERENCE_FIELDS = frozenset(ReferenceConfig.model_fields)
"""What the reference depends on, for an attack's ``PREPARE_FIELDS``."""

SMOKE_REFERENCE: Mapping[str, Any] = {
    "reference_width": 32, "reference_layers": 1, "reference_heads": 2, "reference_vocabulary": 400,
    "reference_steps": 60, "reference_learning_rate": 1e-2,
}  # fmt: skip
"""A reference for the preset ``smoke``."""


def train_reference(
    public: Split | None, tokens: int, config: ReferenceConfig, runtime: Runtime, **changes: int
) -> Mapping[str, Any]:
    """Train a reference on public texts, each once, or take it from the runtime's shelf; return its state.

    tokens: of the longest text that it is to be asked about; longer ones are cut. changes: other values of config's
    fields, for a second reference. A training that was killed goes on from the runtime's checkpoints.

    Raises: UsageError without public texts; ModelError when the sizes do not fit or the training diverges.
    """
    if public is None or len(public) == 0:
        raise UsageError("this attack's reference model learns from public texts", hint="give a data set that has them")
    config = config.model_copy(update=changes)
    texts = tuple(dict.fromkeys(public.take(range(len(public)))))[: config.reference_texts]
    settings = {name: getattr(config, name) for name in sorted(REFERENCE_FIELDS)}
    identity = {"texts": digest(list(texts)), "tokens": tokens, **settings}
    return shared("reference-language-model", identity, lambda inner: _trained(texts, tokens, config, inner), runtime)


def _trained(texts: Sequence[str], tokens: int, config: ReferenceConfig, runtime: Runtime) -> Mapping[str, Any]:
    spec = text_input(train_tokenizer(texts, config.reference_vocabulary), tokens)
    size = {"width": config.reference_width, "layers": config.reference_layers, "heads": config.reference_heads}
    model = _built(spec, size, runtime)
    rows = [ids for ids in TextAdapter(spec).encode(texts) if ids]
    plan = StepPlan(
        steps=config.reference_steps, batch_size=config.reference_batch_size,
        learning_rate=config.reference_learning_rate,
    )  # fmt: skip
    weights, history = learn_texts(model, rows, plan, runtime, "reference language model")
    return {
        "weights": weights, "tokenizer": spec.options["tokenizer"], "tokens": tokens, "size": size, "history": history,
    }  # fmt: skip


def restore_reference(state: Mapping[str, Any], runtime: Runtime, batch: int = BATCH) -> ReferenceModel:
    """Return the reference that `train_reference` made."""
    spec = text_input(state["tokenizer"], state["tokens"])
    model = _built(spec, state["size"], runtime)
    model.load_state_dict(state["weights"])
    return ReferenceModel(model.eval().requires_grad_(False), spec, runtime, batch)


def _built(spec: InputSpec, size: Mapping[str, int], runtime: Runtime) -> CausalLanguageModel:
    with runtime.seeded("reference language model", "parameters", size["width"], size["layers"]):
        return runtime.place(small_gpt(1, spec, **size))
