"""Inverting sentence embeddings: a decoder of the adversary's learns to write the text behind an embedding.

What inverters share: the hypothesis, which is trained on public texts and their embeddings (`learn_hypothesis`), what
it writes for cases (`Inverter`). How near the target finds that is in `mi_text.guesses`.

Li, Xu, Song: "Sentence Embedding Leaks More Information than You Expect: Generative Embedding Inversion Attack to
Recover the Whole Sentence", Findings of ACL 2023: a decoder behind one linear projection of the embedding. Morris,
Kuleshov, Shmatikov, Rush: "Text Embeddings Reveal (Almost) As Much As Text", EMNLP 2023: ranking by embedding again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from mi_text.adapter import pad
from mi_text.decoder import Decoder, standardised, statistics_of
from mi_text.guesses import Guesses
from mi_text.public_embeddings import Pairs, observed_embeddings, public_pairs
from mi_text.sampling import Sampling
from mi_text.steps import StepPlan, train_steps
from mi_text.tokenizing import PAD_ID, TOKENIZER, decode, narrowed, text_input, tokenizer_of, train_tokenizer
from mi_text.transformer import Size
from micore.contracts import Case, Config, Prepared, Split
from micore.errors import DataError, UsageError
from micore.inputs import InputSpec
from micore.kit.stages import Stages, shared, tensor_digest
from micore.runtime import Runtime
from micore.target import Target

EMBEDDING = "embedding"
"""The condition of the hypothesis."""


class InverterConfig(Config):
    """Settings of the hypothesis; the defaults are those of GEIA's authors, and the shape is that of GPT-2 large."""

    tokenizer: Literal["own", "target"] = Field(
        "own", description="own: made of the public texts; target: of the target's pieces of words, if it has such"
    )
    vocabulary: int = Field(50_257, ge=300, description="tokens of a tokenizer of the adversary's own")
    max_tokens: int = Field(40, ge=1, description="tokens of a text; the rest is cut off (code: 40)")
    width: int = Field(1280, ge=1, description="of the decoder (GPT-2 large: 1280)")
    layers: int = Field(36, ge=1, description="of the decoder (GPT-2 large: 36)")
    heads: int = Field(20, ge=1, description="of the decoder's attention (GPT-2 large: 20)")
    steps: int = Field(12_500, ge=1, description="of the training (code: 10 passes, of 20,000 texts here)")
    batch_size: int = Field(16, ge=1, description="texts of a step (code: 16)")
    learning_rate: float = Field(3e-5, gt=0, description="highest of the training's schedule (code: 3e-5)")
    smoothing: float = Field(0.02, ge=0, lt=1, description="of the labels (code: 0.02)")
    public: int | None = Field(None, ge=2, description="public texts that the target is asked about; none: all")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> InverterConfig:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        return self


HYPOTHESIS_FIELDS = frozenset(InverterConfig.model_fields)

SMALL: Mapping[str, Any] = {
    "tokenizer": "target", "vocabulary": 2048, "width": 192, "layers": 3, "heads": 3, "steps": 1200, "batch_size": 64,
    "learning_rate": 2e-3, "public": 20_000,
}  # fmt: skip
"""For some ten thousand short texts on a CPU."""

TINY: Mapping[str, Any] = {
    "vocabulary": 400, "max_tokens": 8, "width": 48, "layers": 1, "heads": 2, "steps": 200, "batch_size": 32,
    "learning_rate": 1e-2,
}  # fmt: skip
"""For texts of four words."""


# learning -------------------------------------------------------------------------------------------------


def learn_hypothesis(
    config: InverterConfig, target: Target, public: Split | None, stages: Stages
) -> tuple[Pairs, Mapping[str, Any]]:
    """Ask the target about the public texts and train the hypothesis on its answers; return both, as plain data.

    Attacks with equal settings on one target share them, by the runtime's shelf.

    Raises: UsageError without two public texts; BudgetExceeded.
    """

    def ask(stage: Runtime) -> Mapping[str, Any]:
        return pairs_state(public_pairs(target, public, config.public, stage))

    pairs = restore_pairs(stages.run("pairs", ask))
    if len(pairs.texts) < 2:
        raise UsageError("this attack learns from public texts: one is not enough", hint="give more of them")
    return pairs, stages.run("hypothesis", lambda stage: _hypothesis(pairs, config, target.input_spec, stage))


def pairs_state(pairs: Pairs) -> dict[str, Any]:
    """Return public texts and their embeddings as plain data."""
    return {"texts": list(pairs.texts), "embeddings": pairs.embeddings}


def restore_pairs(state: Mapping[str, Any]) -> Pairs:
    """Return public texts and their embeddings from what `pairs_state` gave."""
    return Pairs(texts=tuple(state["texts"]), embeddings=state["embeddings"])


def _hypothesis(pairs: Pairs, config: InverterConfig, spec: InputSpec, runtime: Runtime) -> Mapping[str, Any]:
    settings = config.model_dump(mode="json", include=set(HYPOTHESIS_FIELDS - {"public"}))
    identity = {"settings": settings, "texts": list(pairs.texts), "embeddings": tensor_digest(pairs.embeddings)}
    return shared("embedding-inverter", identity, lambda part: _train(pairs, config, spec, part), runtime)


def adversary_tokenizer(config: InverterConfig, spec: InputSpec, texts: Sequence[str]) -> str:
    """Return the tokenizer that the decoder writes with, as JSON text; spec: of the target, which is no secret.

    An encoder sums up pieces of words, so that a decoder that writes the same pieces has less to learn.
    """
    theirs = spec.options.get(TOKENIZER) if config.tokenizer == "target" else None
    found = narrowed(theirs, texts) if isinstance(theirs, str) else None
    return found or train_tokenizer(texts, config.vocabulary)


def _train(pairs: Pairs, config: InverterConfig, spec: InputSpec, runtime: Runtime) -> dict[str, Any]:
    """Train the decoder: cross-entropy of a public text and its end after its embedding (GEIA, equation 2)."""
    tokenizer = adversary_tokenizer(config, spec, pairs.texts)
    rows = encode(read_tokenizer(tokenizer), pairs.texts, config.max_tokens)
    statistics = statistics_of(pairs.embeddings)
    values = standardised(pairs.embeddings, statistics)
    with runtime.seeded("hypothesis", "parameters"):
        decoder = Decoder(hypothesis_size(config, tokenizer), {EMBEDDING: (values.shape[1], 1)})
    runtime.place(decoder)

    def losses(batch: Tensor) -> Tensor:
        tokens = batch_of_ids([rows[row] for row in batch.tolist()]).to(runtime.device)
        prefix = decoder.prefix({EMBEDDING: values[batch].to(runtime.device)})
        return decoder.losses(prefix, tokens, config.smoothing)

    plan = StepPlan(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate)
    history = train_steps(decoder, losses, [len(row) for row in rows], plan, runtime, "hypothesis")
    weights = {name: tensor.detach().cpu().clone() for name, tensor in decoder.state_dict().items()}
    return {"tokenizer": tokenizer, "statistics": statistics, "weights": weights, "history": history}


def hypothesis_size(config: InverterConfig, tokenizer: str) -> Size:
    """Return the size of the hypothesis: a place for the embedding and one for each token."""
    return Size(
        vocabulary=read_tokenizer(tokenizer).get_vocab_size(), tokens=1 + config.max_tokens, width=config.width,
        layers=config.layers, heads=config.heads,
    )  # fmt: skip


def read_tokenizer(text: str) -> Tokenizer:
    """Return a tokenizer from its JSON text."""
    return tokenizer_of(text_input(text, 1))


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Return the ids of each text, cut to ``max_tokens``."""
    return [item.ids[:max_tokens] for item in tokenizer.encode_batch(list(texts))]


def batch_of_ids(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows of ids as int64 (N, T), padded to the longest."""
    return pad(rows, width=max((len(row) for row in rows), default=0) or 1)


# writing --------------------------------------------------------------------------------------------------


def write_tiled(
    decoder: Decoder, prefix: Callable[[Tensor], Tensor], uniform: Tensor, sampling: Sampling, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Write behind a prefix for each row; return ids (N, max_tokens) and mean log-likelihoods of a token (N,), CPU.

    prefix: rows int64 (B,), on the CPU, to their prefixes (B, P, width); uniform: each row's numbers (max_tokens, N).
    Tiles have a constant size, so that a row's arithmetic does not depend on how many others there are.
    """
    n, tile = uniform.shape[1], runtime.tile
    found, means = [torch.empty(0, sampling.max_tokens, dtype=torch.int64)], [torch.empty(0)]
    for start in range(0, n, tile):
        rows = torch.arange(start, min(start + tile, n))
        filled = functional.pad(rows, (0, tile - len(rows)), value=int(rows[-1]))
        ids, total = decoder.write(prefix(filled), sampling, uniform[:, filled.to(uniform.device)])
        counted = ((ids != PAD_ID).sum(dim=1) + 1).clamp(max=sampling.max_tokens)
        found.append(ids[: len(rows)].cpu())
        means.append((total / counted)[: len(rows)].cpu())
    return torch.cat(found), torch.cat(means)


def uniform_numbers(cases: Sequence[Case], n: int, max_tokens: int, runtime: Runtime, *purpose: object) -> Tensor:
    """Return numbers in [0, 1), (max_tokens, cases x n): n rows of each case in turn, from a stream of its own."""
    drawn = [runtime.rng(*purpose, case.id).uniform((max_tokens, n)) for case in cases]
    return torch.cat(drawn, dim=1) if drawn else torch.empty(max_tokens, 0, device=runtime.device)


@dataclass(frozen=True, kw_only=True)
class Inverter:
    """A trained hypothesis: writes texts behind embeddings. statistics: of the public embeddings."""

    decoder: Decoder
    tokenizer: Tokenizer
    statistics: Sequence[Tensor]
    max_tokens: int
    runtime: Runtime

    @classmethod
    def restore(cls, config: InverterConfig, state: Mapping[str, Any], runtime: Runtime) -> Inverter:
        """Build it from what `learn_hypothesis` gave, on the device, without gradients."""
        width = state["statistics"][0].shape[0]
        with runtime.seeded("restore"):
            decoder = Decoder(hypothesis_size(config, state["tokenizer"]), {EMBEDDING: (width, 1)})
        decoder.load_state_dict(dict(state["weights"]))
        return cls(
            decoder=runtime.place(decoder).eval().requires_grad_(False), tokenizer=read_tokenizer(state["tokenizer"]),
            statistics=state["statistics"], max_tokens=config.max_tokens, runtime=runtime,
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Dimensions of the embeddings."""
        return self.statistics[0].shape[0]

    def standardised(self, embeddings: Tensor) -> Tensor:
        """Return embeddings (N, d) as the networks take them: the mean of the public ones is 0."""
        return standardised(embeddings, self.statistics)

    def write(self, embeddings: Tensor, temperature: float, uniform: Tensor) -> tuple[list[str], Tensor]:
        """Return a text for each embedding (N, d), and its mean log-likelihood of a token (N,), in nats, on the CPU."""
        values = self.standardised(embeddings.cpu())
        sampling = Sampling(max_tokens=self.max_tokens, temperature=temperature)

        def prefix(rows: Tensor) -> Tensor:
            return self.decoder.prefix({EMBEDDING: values[rows].to(self.runtime.device)})

        ids, likelihoods = write_tiled(self.decoder, prefix, uniform, sampling, self.runtime)
        return decode(self.tokenizer, ids.tolist()), likelihoods

    def propose(self, cases: Sequence[Case], n: int, temperature: float) -> list[Guesses]:
        """Write for each case the likeliest text, token by token, and n samples; nothing is asked of the target.

        Raises: UsageError for evidence that is no embedding, or one of another width.
        """
        evidence = observed_embeddings(cases, self.width)
        return self._propose(cases, evidence, n, temperature, "candidates")

    def propose_unguided(self, cases: Sequence[Case], n: int, temperature: float) -> list[Guesses]:
        """Write as many texts for each case behind the mean public embedding: what is known without evidence."""
        mean = self.statistics[0].expand(len(cases), -1)
        return self._propose(cases, mean, n, temperature, "unguided")

    def _propose(
        self, cases: Sequence[Case], embeddings: Tensor, n: int, temperature: float, purpose: str
    ) -> list[Guesses]:
        greedy = torch.zeros(self.max_tokens, len(cases), device=self.runtime.device)
        first, first_likelihoods = self.write(embeddings, 0.0, greedy)
        uniform = uniform_numbers(cases, n, self.max_tokens, self.runtime, purpose)
        texts, likelihoods = self.write(embeddings.repeat_interleave(n, dim=0), temperature, uniform)
        return [
            Guesses(
                case=case, evidence=embeddings[row], texts=[first[row], *texts[row * n : (row + 1) * n]],
                likelihoods=[float(first_likelihoods[row]), *likelihoods[row * n : (row + 1) * n].tolist()],
            )
            for row, case in enumerate(cases)
        ]  # fmt: skip


def prepared_state(prepared: Prepared | None, name: str) -> Mapping[str, Any]:
    """Return what an inverter prepared.

    Raises: DataError without.
    """
    if prepared is None:
        raise DataError(f"{name} was not prepared")
    return prepared.state
