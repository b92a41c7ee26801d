"""Extraction of training texts from a language model: draw many texts, rank them by how much they look learnt.

Carlini, Tramer, Wallace, Jagielski, Herbert-Voss, Lee, Roberts, Brown, Song, Erlingsson, Oprea, Raffel: "Extracting
Training Data from Large Language Models", USENIX Security 2021 (arXiv:2012.07805). Beginnings that are known: Carlini
et al., "Quantifying Memorization Across Neural Language Models", ICLR 2023 (arXiv:2202.07646), and the Training Data
Extraction Challenge.

Threat model: black box that writes texts and tells likelihoods of texts; public texts of the same language for prompts
and for a reference model. With evidence ``prefix`` also the beginning of each training text.

1. Draw texts: among the likeliest tokens (``top-k``), with a temperature that falls (``decay``), after beginnings of
   public texts (``prompted``).
2. Rank them by perplexity, and by its ratio to other measures of how likely a text is anyway (`rankings`).
3. Leave out those that share half of their trigrams with one that is ranked better.

With a known beginning: its most likely continuation and drawn ones, ordered by their mean loss.

Fidelity notes (paper / authors' code / here)
- 200,000 texts of 256 tokens for each sampler / 1,000 by default / the preset's; the paper's in ``paper``.
- Duplicates are left out among all samplers together; the paper's are within one sampler and ranking.
- Decay: linear from 10 to 1 over 20 tokens (paper; the code has none). A hot start leads small models astray, so the
  preset ``default`` falls from 2 over 3 tokens.
- Prompts: 5 to 10 tokens of web pages / 10 tokens / 5 to 10 words of public texts: the target's tokens may be unknown.
- Perplexity: of the text encoded anew, as the code does; it leaves the first token out, here it counts.
- ``lowercase``: ratio of perplexities in words / of their logarithms in code and here. ``window``: only in the paper.
- ``small``, ``medium``: GPT-2 models of the same training data / here reference models of public texts with a tokenizer
  of their own, so that totals of whole texts are divided and not means of tokens.
- Logarithms below 0.001 count as that (neither paper nor code): a text that is certain would outrank all.
- Continuations: the challenge's baseline orders by the loss of the last 50 tokens but one, and the one in front; here
  of all tokens behind the beginning, and the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from mi_attack_lm_extraction.drawing import draw, prompts_of
from mi_attack_lm_extraction.duplicates import different
from mi_attack_lm_extraction.prefixes import continuations, suffix_losses
from mi_attack_lm_extraction.rankings import RANKINGS, rankings_of
from mi_text.evidence import Hole, evidence_of
from mi_text.reference_model import (
    REFERENCE_FIELDS,
    SMOKE_REFERENCE,
    AskedTarget,
    LanguageModel,
    ReferenceConfig,
    ReferenceModel,
    restore_reference,
    train_reference,
)
from mi_text.sampling import Sampling
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Ledger, Spending

Sampler = Literal["top-k", "decay", "prompted"]
SAMPLERS: tuple[Sampler, ...] = ("top-k", "decay", "prompted")
QUERIES = 3
"""For each drawn text: to draw it, for its likelihood, and for that of it in lower case."""


class ExtractionConfig(ReferenceConfig):
    """Settings of the attack; the numbers are the paper's, unless said otherwise."""

    evidence: Literal["nothing", "prefix"] = Field("nothing", description="prefix: texts' beginnings are known")
    samplers: tuple[Sampler, ...] = Field(SAMPLERS, min_length=1, description="how texts are drawn (paper: all three)")
    samples: int = Field(200_000, ge=1, description="texts drawn by each sampler (paper: 200,000)")
    max_tokens: int = Field(256, ge=1, description="tokens of a drawn text at most (paper: 256)")
    top_k: int = Field(40, ge=1, description="likeliest tokens that are drawn from (paper: 40)")
    hot: float = Field(10.0, gt=0, description="first temperature of the sampler decay (paper: 10)")
    hot_tokens: int = Field(20, ge=1, description="tokens until it is 1 (paper: 20)")
    prompt_words: tuple[int, int] = Field((5, 10), description="least and most words of a prompt (paper: tokens)")
    window: int = Field(50, ge=1, description="tokens of the ranking window (paper: 50)")
    ranking: Literal["perplexity", "zlib", "lowercase", "window", "small", "medium"] = Field(
        "zlib", description="what the texts are ordered by; the paper compares them"
    )
    medium_width: int | None = Field(None, ge=2, description="width of a second, larger reference; none: no such")
    medium_layers: int = Field(4, ge=1, description="layers of the second reference")
    keep: int = Field(1000, ge=1, description="texts given back at most (paper: 1,000 for each sampler and ranking)")
    continuations: int = Field(100, ge=0, description="drawn for each beginning, beside the likeliest (code: 100)")
    continuation_top_k: int = Field(
        10, ge=1, description="likeliest tokens that continuations are drawn from (code: 10)"
    )
    batch_size: int = Field(64, ge=1, description="texts that the target is asked about at once")

    @model_validator(mode="after")
    def _consistent(self) -> ExtractionConfig:
        least, most = self.prompt_words
        if not 1 <= least <= most:
            raise ValueError(f"prompt_words={least},{most}: the least must be at least 1, and not above the most")
        if self.ranking == "medium" and self.medium_width is None:
            raise ValueError("ranking=medium needs a second reference: give medium_width")
        return self


class TrainingTextExtraction:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = ExtractionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "samples": 1000, "max_tokens": 64, "hot": 2.0, "hot_tokens": 3, "prompt_words": (1, 4), "window": 16,
            "continuations": 10,
        },
        "smoke": {
            **SMOKE_REFERENCE, "samples": 64, "max_tokens": 12, "hot": 2.0, "hot_tokens": 2, "prompt_words": (1, 1),
            "window": 4, "keep": 3, "continuations": 4,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = REFERENCE_FIELDS | {"medium_width", "medium_layers"}

    def __init__(self, config: ExtractionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the reference models on public texts, and keep these for prompts; the target is not asked.

        Raises: UsageError without public texts; ModelError.
        """
        config, stages, tokens = self.config, Stages(runtime), target.input_spec.shape[0]
        references = {"small": stages.run("small", lambda inner: train_reference(public, tokens, config, inner))}
        if (width := config.medium_width) is not None:
            changes = {"reference_width": width, "reference_layers": config.medium_layers}
            references["medium"] = stages.run(
                "medium", lambda inner: train_reference(public, tokens, config, inner, **changes)
            )
        texts = list(dict.fromkeys(public.take(range(len(public))))) if public is not None else []
        return Prepared(state={"references": references, "texts": texts})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Draw texts for a whole corpus, continuations for each beginning.

        Raises: BudgetExceeded, for a corpus only when not one text of each sampler can be paid.
        """
        model = AskedTarget(target, self.config.batch_size)
        references = self._references(prepared, runtime)
        for case in cases:
            with target.ledger.owned_by([case.id]):
                if self.config.evidence == "prefix":
                    yield self._continue(case, model, runtime)
                else:
                    samples = self._affordable(target.ledger)
                    yield self._extract(case, model, references, _texts(prepared), samples, runtime)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Do the same with the texts of the small reference, which never saw the corpus."""
        references = self._references(prepared, runtime)
        for case in cases:
            if self.config.evidence == "prefix":
                yield self._continue(case, references[0], runtime)
            else:
                yield self._extract(case, references[0], references, _texts(prepared), self.config.samples, runtime)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the queries: three for each drawn text; with a beginning two for each continuation, and one for it."""
        config = self.config
        each = QUERIES * config.samples * len(config.samplers)
        if config.evidence == "prefix":
            each = 2 * (1 + config.continuations) + 1
        return Forecast(preparation=Spending(), per_case=Spending(queries=each))

    def _extract(
        self, case: Case, model: LanguageModel, references: Sequence[LanguageModel], public: Sequence[str], n: int,
        runtime: Runtime,
    ) -> Reconstruction:  # fmt: skip
        """Draw n texts by each sampler, rank them, and keep the best that differ."""
        config = self.config
        drawn = [text for sampler in config.samplers for text in self._drawn(sampler, case, model, public, n, runtime)]
        texts = list(dict.fromkeys(text for text in drawn if text))
        if not texts:
            raise DataError("the language model wrote nothing but empty texts: there is nothing to rank")
        values = rankings_of(texts, model, references, config.window)
        order = values[:, RANKINGS.index(config.ranking)].argsort(descending=True, stable=True).tolist()
        kept = [order[place] for place in different([texts[row] for row in order])][: config.keep]
        counts = {"drawn": len(drawn), "different": len(texts), "kept": len(kept)}
        return Reconstruction(
            case=case, samples=[texts[row] for row in kept], scores=self._scores(values[kept]), latents=values[kept],
            history={name: [float(count)] for name, count in counts.items()}, complete=n == config.samples,
        )  # fmt: skip

    def _scores(self, values: Tensor) -> Tensor:
        return values[:, RANKINGS.index(self.config.ranking)].clone()

    def _drawn(
        self, sampler: Sampler, case: Case, model: LanguageModel, public: Sequence[str], n: int, runtime: Runtime
    ) -> list[str]:
        config, rng = self.config, runtime.rng("lm-extraction", sampler, case.id)
        hot = {"hot": config.hot, "hot_tokens": config.hot_tokens} if sampler == "decay" else {}
        sampling = Sampling(max_tokens=config.max_tokens, top_k=None if hot else config.top_k, **hot)  # type: ignore[arg-type]
        prompts = prompts_of(public, n, config.prompt_words, rng) if sampler == "prompted" else [""] * n
        return draw(model, prompts, sampling, rng)

    def _continue(self, case: Case, model: LanguageModel, runtime: Runtime) -> Reconstruction:
        """Find the continuations of a beginning, the least loss first."""
        config, hole = self.config, evidence_of(case, Hole)
        sampling = Sampling(max_tokens=config.max_tokens, top_k=config.continuation_top_k)
        rng = runtime.rng("lm-extraction", "continuations", case.id)
        texts = continuations(model, hole.before, config.continuations, sampling, rng)
        losses = suffix_losses(model, hole.before, texts)
        order = losses.argsort(stable=True)[: config.keep]
        return Reconstruction(case=case, samples=[texts[row] for row in order.tolist()], scores=-losses[order])

    def _affordable(self, ledger: Ledger) -> int:
        """Return how many texts of each sampler the budget pays, at most those that are wanted."""
        limit, wanted = ledger.budget.queries, self.config.samples
        if limit is None:
            return wanted
        left = (limit - ledger.total.queries) // (QUERIES * len(self.config.samplers))
        if left < 1:
            raise BudgetExceeded(
                f"the budget does not pay a text of each sampler, {QUERIES * len(self.config.samplers)} queries",
                hint="raise --budget-queries, then `mi resume` continues",
            )
        return min(left, wanted)

    def _references(self, prepared: Prepared | None, runtime: Runtime) -> list[ReferenceModel]:
        if prepared is None:
            raise DataError("lm-extraction was not prepared")
        states = prepared.state["references"]
        names = ("small", "medium") if "medium" in states else ("small",)
        return [restore_reference(states[name], runtime, self.config.batch_size) for name in names]


def _texts(prepared: Prepared | None) -> list[str]:
    return list(prepared.state["texts"]) if prepared is not None else []
