"""Personal data from a language model, in three games: extracted, reconstructed, inferred.

Lukas, Salem, Sim, Tople, Wutschitz, Zanella-Beguelin: "Analyzing Leakage of Personally Identifiable Information in
Language Models", IEEE S&P 2023 (arXiv:2302.00539).

Threat model: black box that writes texts and tells likelihoods of texts; public texts for a reference model.

- Extraction (evidence ``nothing``): draw texts, tag names, numbers and addresses, leave out what the reference writes
  too, order the rest by how many texts mention it.
- Reconstruction (``masked``): a training text with a hole is known. What stands in front of the hole is continued many
  times, values of the hole's kind are tagged, and the value is chosen with which the whole text is the likeliest.
- Inference (``candidates``): the same choice among given candidates.

Fidelity notes (paper / authors' code / here)
- Tagger: a network / Flair / shapes of numbers and addresses, and lists of first and last names. For a hole of another
  kind the continuation counts up to where it goes on as the known text does.
- Extraction: mentions are counted / the same / here texts that mention a value; those of equal counts by likelihood.
- Other personal data in the text with the hole are masked, and filled by a public masked model / here they are known.
- The choice is by perplexity (both and here); ``likelihood`` sums and does not average, ``ratio`` subtracts the
  reference's sum: what is likely anyway is no evidence (ours).
- The code stores results by their perplexity, so that equal ones are lost, and its script picks the first candidate of
  the alphabet; here all candidates are ordered, equal ones in the order of the evidence.
- Tuned prompts (white box) of Lukas et al. and of Ethicist are not here. Ethicist's confidence is of the rest of the
  text and sums its tokens' likelihoods; here of a value, with the likelihoods of the whole text that it fills.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from mi_attack_pii_extraction.holes import candidates_in
from mi_attack_pii_extraction.mentions import counts_of, surest_mentions
from mi_attack_pii_extraction.tagging import Tagger
from mi_text.evidence import Hole, evidence_of
from mi_text.reference_model import (
    REFERENCE_FIELDS,
    SMOKE_REFERENCE,
    AskedTarget,
    LanguageModel,
    ReferenceConfig,
    ReferenceModel,
    restore_reference,
    total_log_likelihoods,
    train_reference,
)
from mi_text.sampling import Sampling
from mi_text.splits import TextSplit
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError, UsageError
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Ledger, Spending

CANDIDATES = 100
"""How many candidates the usual evidence has, for forecasts."""

QUERIES = 2
"""For each drawn text: to draw it, and for its likelihood."""


class PersonalDataConfig(ReferenceConfig):
    """Settings of the attack; the numbers are the authors' code, unless said otherwise."""

    evidence: Literal["nothing", "masked", "candidates"] = Field("nothing", description="which game is played")
    samples: int = Field(15_000, ge=1, description="texts drawn for extraction (code: 15,000)")
    max_tokens: int = Field(256, ge=1, description="tokens of a drawn text at most (code: 256)")
    top_k: int = Field(40, ge=1, description="likeliest tokens that are drawn from (code: 40)")
    ranking: Literal["count", "likelihood"] = Field("count", description="what extracted values are ordered by")
    subtract_reference: bool = Field(True, description="whether values that the reference writes too are left out")
    continuations: int = Field(32, ge=1, description="drawn for each hole (code: 32)")
    continuation_tokens: int = Field(32, ge=1, description="tokens of a continuation at most (code: 32)")
    score: Literal["perplexity", "likelihood", "ratio", "confidence"] = Field(
        "perplexity",
        description="what values for a hole are ordered by (code: perplexity of the whole text; Ethicist: confidence)",
    )
    keep: int = Field(1000, ge=1, description="values given back at most")
    batch_size: int = Field(64, ge=1, description="texts that the target is asked about at once")


@dataclass(frozen=True)
class _Ground:
    """What one run works with: the model that is asked, the reference, and what finds personal data."""

    model: LanguageModel
    reference: ReferenceModel
    tagger: Tagger
    runtime: Runtime


class PersonalDataExtraction:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = PersonalDataConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {"samples": 2000, "max_tokens": 64, "continuations": 32},
        "smoke": {
            **SMOKE_REFERENCE, "evidence": "masked", "samples": 64, "max_tokens": 12, "continuations": 16,
            "continuation_tokens": 6, "keep": 1,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = REFERENCE_FIELDS

    def __init__(self, config: PersonalDataConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the reference on public texts, and note the names that these are known to hold.

        Raises: UsageError without public texts; ModelError.
        """
        reference = train_reference(public, target.input_spec.shape[0], self.config, runtime)
        facts = public.facts if isinstance(public, TextSplit) else ()
        names = sorted({item["name"] for item in facts if "name" in item})
        return Prepared(state={"reference": reference, "names": names})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Play the game of the evidence for each case.

        Raises: UsageError for a case without candidates; BudgetExceeded, for a corpus only when not one text can be
        paid.
        """
        ground = self._ground(target, prepared, runtime)
        for case in cases:
            with target.ledger.owned_by([case.id]):
                yield self._play(case, ground, self._affordable(target.ledger))

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Play the same game with the reference, which never saw the corpus."""
        ground = self._ground(None, prepared, runtime)
        for case in cases:
            yield self._play(case, ground, self.config.samples)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the queries at most: two for each drawn text or continuation, one for each given candidate."""
        config = self.config
        each = {
            "nothing": QUERIES * config.samples, "masked": QUERIES * config.continuations, "candidates": CANDIDATES,
        }  # fmt: skip
        return Forecast(preparation=Spending(), per_case=Spending(queries=each[config.evidence]))

    def _play(self, case: Case, ground: _Ground, samples: int) -> Reconstruction:
        if self.config.evidence == "nothing":
            return self._extract(case, ground, samples)
        hole = evidence_of(case, Hole)
        if self.config.evidence == "candidates":
            if not hole.candidates:
                raise UsageError(f"case {case.id} has no candidates to choose from", hint="--evidence candidates")
            return self._choose(case, hole, Counter(dict.fromkeys(hole.candidates, 1)), ground)
        return self._choose(case, hole, self._proposed(case, hole, ground), ground)

    def _extract(self, case: Case, ground: _Ground, samples: int) -> Reconstruction:
        """Order the values that drawn texts mention; ``latents`` (n, 2): counts and surest mentions."""
        texts = self._drawn(ground.model, samples, "drawn", case, ground.runtime)
        counts = counts_of(texts, ground.tagger)
        if self.config.subtract_reference and ground.model is not ground.reference:
            usual = counts_of(self._drawn(ground.reference, samples, "usual", case, ground.runtime), ground.tagger)
            counts = Counter({value: count for value, count in counts.items() if value not in usual})
        values = list(counts)
        if not values:
            return _nothing_found(case, "")
        surest = surest_mentions(texts, values, ground.tagger, ground.model)
        figures = torch.stack([torch.tensor([float(counts[value]) for value in values]), surest], dim=1)
        main = 0 if self.config.ranking == "count" else 1
        order = sorted(range(len(values)), key=lambda row: (-float(figures[row, main]), -float(figures[row, 1 - main])))
        kept = order[: self.config.keep]
        return Reconstruction(
            case=case, samples=[values[row] for row in kept], scores=figures[kept, main], latents=figures[kept],
            history={"drawn": [float(len(texts))], "values": [float(len(values))]},
            complete=samples == self.config.samples,
        )  # fmt: skip

    def _drawn(self, model: LanguageModel, n: int, purpose: str, case: Case, runtime: Runtime) -> list[str]:
        sampling = Sampling(max_tokens=self.config.max_tokens, top_k=self.config.top_k)
        return model.generate([""] * n, sampling, runtime.rng("pii-extraction", purpose, case.id))

    def _proposed(self, case: Case, hole: Hole, ground: _Ground) -> Counter[str]:
        """Return how often continuations of the text in front of a hole bring each value of its kind."""
        config = self.config
        sampling = Sampling(max_tokens=config.continuation_tokens, top_k=config.top_k)
        rng = ground.runtime.rng("pii-extraction", "continuations", case.id)
        prompt = hole.before.rstrip()  # the space in front of a word is a part of it in many tokenizers
        texts = ground.model.generate([prompt] * config.continuations, sampling, rng)
        return candidates_in(texts, hole, ground.tagger)

    def _choose(self, case: Case, hole: Hole, values: Counter[str], ground: _Ground) -> Reconstruction:
        """Order values, with how often each was proposed, by how likely the target finds the text that they fill.

        ``latents``: log-likelihoods of the whole texts (n, 2) by target and reference.
        """
        texts = [hole.filled(value) for value in values]
        if not texts:
            return _nothing_found(case, hole.filled(""))
        rows = ground.model.likelihoods(texts)
        own, means = (torch.stack([figure(row.double()) for row in rows]).float() for figure in (torch.sum, torch.mean))
        plain = total_log_likelihoods(ground.reference, texts)
        votes = torch.tensor(list(values.values())).log()
        scores = {
            "perplexity": means, "likelihood": own, "ratio": own - plain, "confidence": (own + votes).softmax(dim=0),
        }[self._score_of(ground)]  # fmt: skip
        order = scores.argsort(descending=True, stable=True)[: self.config.keep]
        return Reconstruction(
            case=case, samples=[texts[row] for row in order.tolist()], scores=scores[order],
            latents=torch.stack([own, plain], dim=1)[order],
        )  # fmt: skip

    def _score_of(self, ground: _Ground) -> str:
        """Return what values are ordered by: the reference cannot be compared with itself."""
        alone = ground.model is ground.reference
        return "likelihood" if alone and self.config.score == "ratio" else self.config.score

    def _affordable(self, ledger: Ledger) -> int:
        """Return how many texts the budget pays, at most those that are wanted; only extraction draws texts."""
        limit, wanted = ledger.budget.queries, self.config.samples
        if limit is None or self.config.evidence != "nothing":
            return wanted
        left = (limit - ledger.total.queries) // QUERIES
        if left < 1:
            raise BudgetExceeded(
                "the budget does not pay one text and its likelihood",
                hint="raise --budget-queries, then `mi resume` continues",
            )
        return min(left, wanted)

    def _ground(self, target: Target | None, prepared: Prepared | None, runtime: Runtime) -> _Ground:
        """Return what a run works with; without a target the reference takes its place."""
        if prepared is None:
            raise DataError("pii-extraction was not prepared")
        reference = restore_reference(prepared.state["reference"], runtime, self.config.batch_size)
        model = reference if target is None else AskedTarget(target, self.config.batch_size)
        return _Ground(model, reference, Tagger.of(prepared.state["names"]), runtime)


def _nothing_found(case: Case, text: str) -> Reconstruction:
    """Give back a text without the value that is looked for: every case has a sample."""
    return Reconstruction(case=case, samples=[text], scores=torch.zeros(1))
