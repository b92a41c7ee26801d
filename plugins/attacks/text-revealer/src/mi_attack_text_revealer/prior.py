"""The adversary's language model: trained on public texts with the target's tokenizer, so that its soft tokens fit.

It never sees the target's answers, and is shared by all targets with the same tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor

from mi_text.adapter import TextAdapter, pad
from mi_text.language_model import GENERATE, CausalLanguageModel
from mi_text.sampling import Sampling
from mi_text.steps import StepPlan, learn_texts
from mi_text.tokenizing import PAD_ID, TOKENIZER, UNKNOWN_ID, decode, tokenizer_of
from mi_text.transformer import Size
from micore.contracts import Config, Split
from micore.errors import DataError, ModelError
from micore.inputs import InputSpec
from micore.kit.stages import shared
from micore.runtime import Random, Runtime

PRIOR_FIELDS = frozenset(
    {"prior_width", "prior_layers", "prior_heads", "prior_steps", "prior_batch_size", "prior_learning_rate"}
)
BATCH = 256


class PriorConfig(Config):
    """Settings of the language model."""

    prior_width: int = Field(256, ge=1, description="width of the language model; a multiple of prior_heads")
    prior_layers: int = Field(4, ge=1, description="layers of the language model")
    prior_heads: int = Field(4, ge=1, description="attention heads of the language model")
    prior_steps: int = Field(2000, ge=1, description="steps of its training on public texts")
    prior_batch_size: int = Field(64, ge=1, description="texts of one such step")
    prior_learning_rate: float = Field(1e-3, gt=0, description="of its training, after warm-up")


@dataclass(frozen=True, kw_only=True)
class TextPrior:
    """A language model with its tokenizer (`micore.contracts.Prior`).

    module: on the run's device, in eval mode, without gradients. spec: the input that texts become.
    """

    module: CausalLanguageModel
    spec: InputSpec

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's tokenizer."""
        return tokenizer_of(self.spec)

    @property
    def tokens(self) -> int:
        """How many tokens a text has at most."""
        return self.spec.shape[0]

    def sample(self, n: int, rng: Random, max_tokens: int | None = None) -> list[str]:
        """Draw n texts that aim at no class."""
        sampling = Sampling(max_tokens=min(max_tokens or self.tokens, self.tokens))
        device = self.module.network.tokens.weight.device
        found: list[str] = []
        for start in range(0, n, BATCH):
            empty = torch.zeros((min(BATCH, n - start), 0), dtype=torch.int64, device=device)
            with torch.no_grad():
                ids = self.module.serve(GENERATE, empty, sampling=sampling, rng=rng)
            found += decode(self.tokenizer, ids.tolist())
        return found

    def encode(self, texts: Sequence[str], width: int) -> Tensor:
        """Return the ids that the target reads of texts, int64 (N, width), on the CPU; no row is empty."""
        rows = TextAdapter(self.spec).encode(texts)
        return pad([row[:width] or [UNKNOWN_ID] for row in rows], PAD_ID, width)


def prior_state(public: Split | None, spec: InputSpec, config: PriorConfig, runtime: Runtime) -> dict[str, Any]:
    """Train the language model, or take it from the runtime's shelf; return it as plain data.

    Raises: DataError without public texts; ModelError for a target whose tokenizer pads otherwise than with id 0.
    """
    if public is None or len(public) == 0:
        raise DataError("text-revealer needs public texts", hint="give a data set that has them")
    if spec.options.get("pad_id", PAD_ID) != PAD_ID:
        raise ModelError(
            "text-revealer needs a tokenizer whose padding has id 0", hint="attack a target with another tokenizer"
        )
    texts = tuple(dict.fromkeys(public.take(range(len(public)))))
    settings = {name: getattr(config, name) for name in sorted(PRIOR_FIELDS)}
    options = {name: spec.options[name] for name in (TOKENIZER, "closing_id") if name in spec.options}
    size = {
        "vocabulary": TextAdapter(spec).vocabulary, "tokens": spec.shape[0] + 2, "width": config.prior_width,
        "layers": config.prior_layers, "heads": config.prior_heads,
    }  # fmt: skip
    identity = {"texts": list(texts), "settings": settings, "options": options, "size": size}

    def work(inner: Runtime) -> Mapping[str, Any]:
        return {"weights": _trained(texts, spec, Size(**size), config, inner)}

    weights = shared("text-revealer-prior", identity, work, runtime)["weights"]
    return {"weights": weights, "size": size, "options": options, "tokens": spec.shape[0]}


def _trained(
    texts: Sequence[str], spec: InputSpec, size: Size, config: PriorConfig, runtime: Runtime
) -> dict[str, Tensor]:
    with runtime.seeded("prior", "parameters"):
        module = CausalLanguageModel(size)
    runtime.place(module)
    rows = [row or [UNKNOWN_ID] for row in TextAdapter(spec).encode(texts)]
    plan = StepPlan(
        steps=config.prior_steps, batch_size=config.prior_batch_size, learning_rate=config.prior_learning_rate
    )
    weights, _ = learn_texts(module, rows, plan, runtime, "language model")
    return weights


def restore_prior(state: Mapping[str, Any], runtime: Runtime) -> TextPrior:
    """Build the language model again from what `prior_state` returned."""
    with runtime.seeded("restore"):
        module = CausalLanguageModel(Size(**state["size"]))
    module.load_state_dict(dict(state["weights"]))
    spec = InputSpec(shape=(int(state["tokens"]),), options=dict(state["options"]))
    return TextPrior(module=runtime.place(module.requires_grad_(False).eval()), spec=spec)
