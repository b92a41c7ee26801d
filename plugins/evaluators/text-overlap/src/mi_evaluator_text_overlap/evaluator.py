"""Words against the truth: the text that an attack deems best, beside the very text that a case is about.

Only the first sample of each case counts: an adversary without the truth cannot pick a better one among the others.
The subject ``holdout`` (other private texts) is measured too: texts of one domain share words, so its figures are what
a fluent guess about another text scores, a floor.

``exact-match``; ``token-f1``, ``token-precision``, ``token-recall`` of the words, each as often as it stands;
``rouge-l``, of the longest common subsequence; ``bleu``, of the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from sacrebleu.metrics.bleu import BLEU

from mi_text.measures import best, exact_match, rouge_l, token_overlap
from micore.contracts import Config, Measurement, Reconstruction, Reference, Subject
from micore.kit.measuring import Figure, Rows, measure
from micore.runtime import Runtime

IDENTITY = "text-overlap@words"
SHARES = ("exact-match", "token-f1", "token-precision", "token-recall", "rouge-l")


class TextOverlapConfig(Config):
    """Settings of the evaluator."""

    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


class TextOverlapEvaluator:
    """Judge recovered texts by their words against the truth."""

    Config: ClassVar[type[Config]] = TextOverlapConfig

    def __init__(self, config: TextOverlapConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike, over the cases that have a truth; nothing where none has."""
        found = []
        for subject in subjects:
            known = [item for item in subject.reconstructions if item.case.id in reference.truth]
            if known:
                truth = [str(reference.truth[item.case.id].sample[0]) for item in known]
                found += self._measure(subject.name, known, truth)
        return found

    def _measure(self, name: str, items: Sequence[Reconstruction], truth: Sequence[str]) -> list[Measurement]:
        guesses = [best(item.samples) for item in items]
        alone = [replace(item, samples=[guess]) for item, guess in zip(items, guesses, strict=True)]
        rows = Rows.of(Subject(name=name, reconstructions=alone), labelled=False)
        empty = sum(not item.samples for item in items)
        notes = (f"{empty} cases without a sample count as wrong as can be",) if empty else ()
        return [
            measure(figure, rows, IDENTITY, resamples=self.config.resamples)
            for figure in figures(guesses, truth, notes)
        ]


def figures(guesses: Sequence[str], truth: Sequence[str], notes: tuple[str, ...] = ()) -> list[Figure]:
    """Compare texts pair by pair: shares in [0, 1], BLEU in points from 0 to 100."""
    pairs = list(zip(guesses, truth, strict=True))
    values = torch.tensor([_shares(*pair) for pair in pairs], dtype=torch.float64)
    points = torch.tensor(sentence_bleu(guesses, truth), dtype=torch.float64)
    shares = [
        Figure(name, column, "share", "up", notes) for name, column in zip(SHARES, values.unbind(dim=1), strict=True)
    ]
    return [*shares, Figure("bleu", points, "points", "up", notes)]


def _shares(guess: str, true: str) -> tuple[float, ...]:
    """Return the values of `SHARES`."""
    overlap = token_overlap(guess, true)
    exact = float(exact_match(guess, true))
    return exact, overlap.f1, overlap.precision, overlap.recall, rouge_l(guess, true)


def sentence_bleu(guesses: Sequence[str], truth: Sequence[str]) -> list[float]:
    """Return the BLEU of each text, 0 to 100, by sacrebleu: tokens 13a, case counts, exponential smoothing.

    Texts of fewer than four tokens are judged by the orders of n-grams that they have, else equal ones would have 0.
    """
    bleu = BLEU(effective_order=True)
    scores = (bleu.sentence_score(guess, [true]).score for guess, true in zip(guesses, truth, strict=True))
    return [min(score, 100.0) for score in scores]  # rounding leaves 100.00000000000004 of equal texts
