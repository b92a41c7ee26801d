"""Hidden prompts of a language model, from its next-token distribution or from what it wrote.

Morris, Zhao, Chiu, Shmatikov, Rush: "Language Model Inversion", ICLR 2024 (arXiv:2311.13647; logit2prompt).
Zhang, Morris, Shmatikov: "Extracting Prompts by Inverting LLM Outputs", EMNLP 2024 (arXiv:2405.15012; output2prompt).

Threat model: scores: the distribution of the token after the hidden prompt (``evidence=next-token``), or several texts
that the target wrote after it (``evidence=outputs``); queries with public texts as prompts.

1. The target is asked about public texts.
2. ``next-token``: the log-probabilities, less the mean of public ones, become vectors of a prefix.
   ``outputs``: an encoder reads each output by itself; what it finds of all of them is the prefix.
   A decoder learns to write the public text after its prefix.
3. Candidates are written after the prefix of the evidence. The target is asked about each, and those come first whose
   answers agree best with the evidence (``verify``).

Fidelity notes (paper / authors' code / here)
- The authors fine-tune T5-base; here a small decoder is trained from nothing, with a tokenizer of public texts.
- logit2prompt: a perceptron for each chunk of 768 log-probabilities (paper), or a sum of word embeddings weighted by
  them in 64 groups (code); here a linear map of ``groups``, of a random ``projection``, of the ``whole`` vector, or of
  its principal ``components``, which keep all that differs between answers (as PILS, Nazir et al., 2025).
- The mean is that of all public answers; the authors' is a running mean of batches.
- Their search forces each length and keeps the least divergence; here the likeliest text and draws are compared so.
- output2prompt: 64 outputs, all states of the encoder go to the decoder's cross-attention, padding as well; here each
  output is read by ``output_places`` learned queries, which never see padding, and the decoder attends to what they
  found as its prefix.
- Presets ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from mi_attack_prompt_inversion.config import PREPARE_FIELDS, InversionConfig
from mi_attack_prompt_inversion.learning import Learned, bags, learn, restore
from mi_attack_prompt_inversion.networks import AnswerInverter
from mi_attack_prompt_inversion.writing import Candidates, likeness, written
from mi_text.public_embeddings import Pairs, nearest_texts
from mi_text.sampling import Sampling
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class PromptInversion:
    """The inversion of prompts (see the module's documentation)."""

    Config: ClassVar[type[Config]] = InversionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {
            "vocabulary": 400, "width": 48, "layers": 1, "heads": 2, "steps": 200, "batch_size": 32,
            "learning_rate": 5e-3, "max_tokens": 8, "places": 4, "candidates": 24, "keep": 2, "outputs": 4,
            "output_tokens": 12, "encoder_layers": 1, "dimensions": 128,
        },
        "paper": {
            "pairs": 2_000_000, "form": "groups", "places": 64, "width": 768, "layers": 12, "heads": 12,
            "vocabulary": 32_000, "max_tokens": 64, "steps": 800_000, "batch_size": 250, "learning_rate": 2e-4,
            "encoder_layers": 12, "output_tokens": 64, "candidates": 63, "keep": 1,
        },
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: InversionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Ask the target about public texts and learn to go back (see `learn` for what it raises)."""
        return Prepared(state=learn(self.config, target, public, runtime))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Write candidates for every case and compare the target's answers to them with the evidence.

        Where the budget ends, the other cases are given back in the decoder's own order.
        """
        learned = _learned(prepared, runtime)
        found = self._written(learned, cases, learned.prefixes(learned.evidence(cases)), runtime)
        stopped: BudgetExceeded | None = None
        for case, candidates in zip(cases, found, strict=True):
            scores = candidates.likelihoods
            if self.config.verify and stopped is None:
                try:
                    scores = likeness(target, case, candidates.texts, self.config.outputs)
                except BudgetExceeded as error:
                    stopped = error
            yield _given_back(case, candidates, scores, self.config.keep, complete=stopped is None)
        if stopped is not None:
            raise stopped

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Write as many texts after the mean prefix of public evidence, which is the same for every case."""
        learned = _learned(prepared, runtime)
        prefixes = learned.mean_prefix()[None].repeat(len(cases), 1, 1)
        for case, candidates in zip(cases, self._written(learned, cases, prefixes, runtime), strict=True):
            yield _given_back(case, candidates, candidates.likelihoods, self.config.keep, complete=True)

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return for each case the public text whose answer, or whose outputs' tokens, are nearest by their cosine."""
        learned = _learned(prepared, runtime)
        evidence = learned.evidence(cases).cpu()
        is_answer = isinstance(learned.inverter, AnswerInverter)
        queries = evidence if is_answer else bags(evidence, int(learned.state["vocabulary"]))
        pairs = Pairs(texts=tuple(learned.state["texts"]), embeddings=learned.state["keys"].float())
        nearest = nearest_texts(queries, pairs)
        return {
            "nearest-public": [
                Reconstruction(case=case, samples=texts, scores=torch.zeros(len(texts)))
                for case, texts in zip(cases, nearest, strict=True)
            ]
        }

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work, at most: equal public texts, and equal candidates, are asked about once."""
        config = self.config
        is_answer = config.evidence == "next-token"
        asked = min(config.pairs, n_public) * (1 if is_answer else config.outputs)
        looks = config.candidates * (1 if is_answer else 1 + config.outputs) if config.verify else 0
        return Forecast(preparation=Spending(queries=asked), per_case=Spending(queries=looks))

    def _written(
        self, learned: Learned, cases: Sequence[Case], prefixes: torch.Tensor, runtime: Runtime
    ) -> list[Candidates]:
        config = self.config
        drawn = Sampling(max_tokens=config.max_tokens, temperature=config.temperature, top_p=config.top_p)
        return written(learned, cases, prefixes, config.candidates, drawn, runtime)


def _given_back(
    case: Case, candidates: Candidates, scores: torch.Tensor, keep: int, *, complete: bool
) -> Reconstruction:
    texts, ordered = candidates.ordered(scores)
    return Reconstruction(case=case, samples=texts[:keep], scores=ordered[:keep], complete=complete)


def _learned(prepared: Prepared | None, runtime: Runtime) -> Learned:
    if prepared is None:
        raise DataError("prompt-inversion was not prepared")
    return restore(prepared.state, runtime)
