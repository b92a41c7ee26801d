"""Exposure of planted secrets: all candidates for a secret in a training text, ranked by the target's likelihood.

Carlini, Liu, Erlingsson, Kos, Song: "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural
Networks", USENIX Security 2019 (arXiv:1802.08232).

Threat model: black box that tells likelihoods of texts; the text around the secret and its format are known, as the
auditor planted it. Public texts serve for the control alone, and for calibration where it is asked for.

Each candidate is put into the text, and the whole text ranked by its log-likelihood. The judge ``exposure`` reads the
rank of the true one. A search can add the likeliest of all secrets of the format: rank 1 then means that the secret is
extracted.

Fidelity notes (paper / authors' code / here)
- Log-perplexity: the sum over the canary in bits / the same / here over the whole text and its end, in nats. What is
  before the secret is the same for all candidates.
- Sums, never means: candidates may have different numbers of tokens.
- The rank is among the candidates of the evidence and what the search found; the paper's references are such a sample.
- Search: a shortest path, one node after the other / not there / here several nodes at once, with the same result.
- Calibration by a reference model is ours, and off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from mi_attack_canary_exposure.search import likeliest
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
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError, UsageError
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

CANDIDATES = 1024
"""How many candidates the usual evidence has, for forecasts."""


class CanaryExposureConfig(ReferenceConfig):
    """Settings of the attack."""

    evidence: Literal["canary"] = Field("canary", description="a planted secret, and others of its format")
    calibrate: bool = Field(False, description="whether the reference's log-likelihood is subtracted (paper: no)")
    search: int = Field(0, ge=0, description="likeliest secrets of the format that a search adds to the candidates")
    search_queries: int = Field(20_000, ge=1, description="queries of a search at most, for each case")
    search_width: int = Field(16, ge=1, description="beginnings of secrets that a search tries at once (paper: 1)")
    keep: int | None = Field(None, ge=1, description="best candidates given back; none: all, as exposure needs them")
    batch_size: int = Field(64, ge=1, description="texts that the target is asked about at once")


class CanaryExposure:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = CanaryExposureConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {**SMOKE_REFERENCE, "keep": 1},
        "paper": {"search": 1, "search_queries": 1_000_000},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = REFERENCE_FIELDS

    def __init__(self, config: CanaryExposureConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the reference on public texts; the target is not asked.

        Raises: UsageError without public texts; ModelError.
        """
        return Prepared(state=train_reference(public, target.input_spec.shape[0], self.config, runtime))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Rank the candidates of each case; ``latents``: log-likelihoods (n, 2) by target and reference.

        Raises: UsageError for a case without candidates; BudgetExceeded.
        """
        model, reference = AskedTarget(target, self.config.batch_size), self._reference(prepared, runtime)
        for case in cases:
            with target.ledger.owned_by([case.id]):
                yield self._rank(case, model, reference, self.config.calibrate)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Rank the candidates by the reference alone, which never saw the secret."""
        reference = self._reference(prepared, runtime)
        for case in cases:
            yield self._rank(case, reference, reference, calibrate=False)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the queries: one for each candidate, and at most those of the search."""
        config = self.config
        searched = config.search + config.search_queries if config.search else 0
        return Forecast(preparation=Spending(), per_case=Spending(queries=CANDIDATES + searched))

    def _rank(self, case: Case, model: LanguageModel, reference: LanguageModel, calibrate: bool) -> Reconstruction:
        config, hole = self.config, evidence_of(case, Hole)
        if not hole.candidates:
            raise UsageError(f"case {case.id} has no candidates to rank", hint="--evidence canary")
        found = (
            likeliest(model, hole, config.search, config.search_queries, config.search_width) if config.search else []
        )
        texts = [hole.filled(value) for value in dict.fromkeys([*hole.candidates, *found])]
        own, plain = total_log_likelihoods(model, texts), total_log_likelihoods(reference, texts)
        scores = own - plain if calibrate else own
        order = scores.argsort(descending=True, stable=True)[: config.keep]
        return Reconstruction(
            case=case, samples=[texts[row] for row in order.tolist()], scores=scores[order],
            latents=torch.stack([own, plain], dim=1)[order], history={"searched": [float(len(found))]},
        )  # fmt: skip

    def _reference(self, prepared: Prepared | None, runtime: Runtime) -> ReferenceModel:
        if prepared is None:
            raise DataError("canary-exposure was not prepared")
        return restore_reference(prepared.state, runtime, self.config.batch_size)
