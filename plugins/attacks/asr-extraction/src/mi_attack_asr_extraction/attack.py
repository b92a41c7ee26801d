"""Noise masking: what a recogniser of speech writes where a word of a training clip is drowned in noise.

Amid, Thakkar, Narayanan, Mathews, Beaufays: "Extracting Targeted Training Data from ASR Models, and How to Mitigate
It", Interspeech 2022 (arXiv:2204.08345). Ranks of all candidates: Carlini et al., "The Secret Sharer", USENIX Security
2019 (arXiv:1802.08232), sections 4 and 5.

Threat model: the adversary holds a training clip, or a copy of it, in which a word was blotted out, knows where that
was and what is said before it, and may send clips. `NoiseMasking` sees transcripts (label access); `MaskedRanking` sees
frame posteriors, from which the likelihood of any transcript follows (scores). No public data.

The span is filled with noise as loud as the speech before it, several times. By transcripts, what is heard behind the
known words is counted over draws. By likelihoods, each candidate is put behind the known words, and candidates are
ranked by the mean log-likelihood of the whole transcript over draws: the rank of the true one gives its exposure.

Fidelity notes (paper / here; the authors published no code)
- Targets: Conformers on LibriSpeech, names / a small recurrent network with CTC, planted digits.
- Noise: several kinds and lengths, of which the best is reported / noise of the clip's own long-term spectrum, white
  noise or silence, of the span's own length; the adversary's choice, not the best in hindsight.
- One transcript of one clip / several draws of noise, counted; ``draws=1`` is the paper's.
- The paper takes a word of the hidden kind anywhere in the transcript / here what follows the known digits, found by
  edit distance.
- Synthetic speech instead of the true clip (the paper's second setting) is not there.
- Ranks by likelihood are ours: the paper counts names.
- Controls: the paper's test names / clips of canaries that were never trained on, which are cases like the others
  (``canary-41-r0``), so that what a span's length or a sound left at its edge gives away is measured as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_asr_extraction.guesses import ranked
from mi_audio.evidence import Masked, evidence_of
from mi_audio.masking import filled
from mi_audio.recogniser import LIKELIHOODS, TRANSCRIBE
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

Fill = Literal["speech-shaped", "white", "silence"]


class MaskingConfig(Config):
    """Settings that both attacks have."""

    evidence: Literal["masked"] = Field("masked", description="a training clip without its secret")
    fills: tuple[Fill, ...] = Field(("speech-shaped",), min_length=1, description="what the span is filled with")
    draws: int = Field(8, ge=1, description="of noise, for each kind of fill (paper: 1)")
    spread_db: float = Field(
        6.0, ge=0, le=40, description="how much louder or softer than the speech before it noise may be (paper: 0)"
    )


class NoiseMaskingConfig(MaskingConfig):
    """Settings of `NoiseMasking`."""

    beam: int = Field(1, ge=1, description="prefixes that the target's decoder keeps; 1: the likeliest way alone")


class MaskedRankingConfig(MaskingConfig):
    """Settings of `MaskedRanking`."""

    keep: int | None = Field(None, ge=1, description="best candidates given back; none: all, as exposure needs them")


class Masking:
    """What both attacks share: noisy clips of each case, in a batch of its own."""

    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> None:
        """Prepare nothing."""

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Ask about each case.

        Raises: UsageError for a case without masked clip, or a target without the service; BudgetExceeded.
        """
        for case in cases:
            with target.ledger.owned_by([case.id]):
                yield self.attacked(case, target, runtime)

    def attacked(self, case: Case, target: Target, runtime: Runtime) -> Reconstruction:
        """Return the guesses of a case, best first."""
        raise NotImplementedError

    def clips(self, case: Case, runtime: Runtime) -> Tensor:
        """Return the case's clip with noise in its span, (fills * draws, length)."""
        held, config = evidence_of(case, Masked), self.config
        streams = {fill: runtime.rng("noise masking", fill, case.id) for fill in config.fills}
        return torch.cat([filled(held, fill, config.draws, rng, config.spread_db) for fill, rng in streams.items()])

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the queries: one for each noisy clip."""
        queries = len(self.config.fills) * self.config.draws
        return Forecast(preparation=Spending(), per_case=Spending(queries=queries))


class NoiseMasking(Masking):
    """Count what is transcribed (see the module's documentation)."""

    Config: ClassVar[type[Config]] = NoiseMaskingConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"draws": 32, "spread_db": 24.0},
        "paper": {"draws": 1, "spread_db": 0.0},
    }

    def attacked(self, case: Case, target: Target, runtime: Runtime) -> Reconstruction:
        """Return each different guess with its share of the draws."""
        held = evidence_of(case, Masked)
        said: list[str] = target.ask(TRANSCRIBE, self.clips(case, runtime), beam=self.config.beam)
        guesses, scores = ranked(said, held.prefix, held.hidden)
        return Reconstruction(
            case=case, samples=[held.prefix + guess for guess in guesses], scores=torch.tensor(scores)
        )  # fmt: skip


class MaskedRanking(Masking):
    """Rank all candidates by likelihood (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MaskedRankingConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"keep": 1},
        "paper": {"draws": 1, "spread_db": 0.0},
    }

    def attacked(self, case: Case, target: Target, runtime: Runtime) -> Reconstruction:
        """Return all candidates with their mean log-likelihoods in nats."""
        held = evidence_of(case, Masked)
        texts = [held.prefix + candidate for candidate in held.candidates]
        found: Tensor = target.ask(LIKELIHOODS, self.clips(case, runtime), transcripts=texts)
        scores = found.double().mean(dim=0).float().cpu()
        order = scores.argsort(descending=True, stable=True)[: self.config.keep]
        return Reconstruction(case=case, samples=[texts[place] for place in order.tolist()], scores=scores[order])
