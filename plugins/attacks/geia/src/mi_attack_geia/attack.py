"""GEIA: a decoder of the adversary's writes the sentence behind an embedding.

Li, Xu, Song: "Sentence Embedding Leaks More Information than You Expect: Generative Embedding Inversion Attack to
Recover the Whole Sentence", Findings of ACL 2023 (arXiv:2305.03010).

Threat model: the embedding of a private text; the target embeds public texts of the adversary's, and, for
``candidates`` above 0, what the attack wrote.

1. The target embeds the public texts. A causal decoder learns to write each of them behind one linear projection of its
   embedding, which stands where other texts begin.
2. The decoder writes the likeliest text behind the private embedding, token by token, and samples of others.
3. The target embeds them: the one whose embedding is nearest to the private one comes first.

Fidelity notes (paper / authors' code / here)
- The decoder: DialoGPT and GPT-2, trained before or from scratch, in the paper; here of the same shape, always from
  scratch, with a tokenizer made of the public texts. Nothing is downloaded.
- The authors fill short texts up with the mark of the end and learn all of it; here the first end counts.
- Decoding: a beam of 5, or samples from a nucleus, and one text given back. Here the likeliest token each time, and
  samples. Ranking them by embedding them again is ours (the idea is Vec2Text's): ``candidates=0`` is without, asks the
  target nothing about a case and ranks nothing.
- Embeddings are shifted and scaled by the public ones' statistics before they are projected.
- Schedule: warm-up of 100 steps, then a cosine to 0 (authors: linear).
- Texts longer than ``max_tokens`` are cut, and learned as if they ended there.
- The presets ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from mi_text.guesses import Guesses
from mi_text.inverting import (
    HYPOTHESIS_FIELDS,
    SMALL,
    TINY,
    Inverter,
    InverterConfig,
    learn_hypothesis,
    pairs_state,
    prepared_state,
    restore_pairs,
)
from mi_text.public_embeddings import nearest_public
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "geia"


class GeiaConfig(InverterConfig):
    """Settings of GEIA; the defaults of single fields are the authors', presets change them."""

    candidates: int = Field(0, ge=0, description="samples of each text besides the likeliest; 0: nothing is ranked")
    temperature: float = Field(0.9, gt=0, description="of the samples (code: 0.9)")


class GenerativeEmbeddingInversion:
    """The attack GEIA (see the module's documentation)."""

    Config: ClassVar[type[Config]] = GeiaConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL, "candidates": 16, "temperature": 0.7},
        "smoke": {**TINY, "candidates": 4, "temperature": 0.7},
        "paper": {},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = HYPOTHESIS_FIELDS

    def __init__(self, config: GeiaConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Let the target embed the public texts, and train the decoder on them (section 3.2).

        Raises: UsageError without two public texts; BudgetExceeded.
        """
        pairs, hypothesis = learn_hypothesis(self.config, target, public, Stages(runtime))
        return Prepared(state={"pairs": pairs_state(pairs), "hypothesis": hypothesis})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Write the texts of all cases, then ask the target about each case's.

        Raises, after all was given back: BudgetExceeded when the budget did not last for all of it; cases that it did
        not last for are ranked by the decoder's likelihood.
        """
        problem: BudgetExceeded | None = None
        for guesses in self._inverter(prepared, runtime).propose(
            cases, self.config.candidates, self.config.temperature
        ):
            try:
                if self.config.candidates and problem is None:
                    guesses.ask(target, guesses.texts)
            except BudgetExceeded as error:
                problem = error
            yield _given(guesses, complete=problem is None)
        if problem is not None:
            raise problem

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Write as many texts behind the mean public embedding: the decoder as a mere language model."""
        inverter = self._inverter(prepared, runtime)
        for guesses in inverter.propose_unguided(cases, self.config.candidates, self.config.temperature):
            yield _given(guesses)

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return the public text with the nearest embedding, as ``nearest-public``."""
        return {"nearest-public": nearest_public(cases, restore_pairs(prepared_state(prepared, NAME)["pairs"]))}

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the public texts, and the texts written for a case; equal ones are asked about once."""
        config = self.config
        written = 1 + config.candidates if config.candidates else 0
        return Forecast(
            preparation=Spending(queries=min(n_public, config.public or n_public)), per_case=Spending(queries=written)
        )

    def _inverter(self, prepared: Prepared | None, runtime: Runtime) -> Inverter:
        return Inverter.restore(self.config, prepared_state(prepared, NAME)["hypothesis"], runtime)


def _given(guesses: Guesses, *, complete: bool = True) -> Reconstruction:
    samples, scores = guesses.by_cosine() if guesses.queries else guesses.by_likelihood()
    return Reconstruction(case=guesses.case, samples=samples, scores=scores, complete=complete)
