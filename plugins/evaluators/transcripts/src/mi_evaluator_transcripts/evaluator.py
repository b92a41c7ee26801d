"""Extraction from a recogniser of speech: which hidden digits of planted clips does the first guess say?

Sources: rates of the true word and of any word of the training data, Amid et al. (Interspeech 2022, arXiv:2204.08345);
exposure, Carlini et al. (USENIX Security 2019): log2 of the number of candidates minus log2 of the rank.

All figures are given for each number of repetitions. Clips of secrets that were never trained on (0 repetitions) are
the control: whatever is recovered of them, the target did not remember.

``secret-rN``: the share whose hidden digits are said, of secrets heard N times; ``any-secret-rN``: that any trained
secret is said; ``digits-rN``: the share of digits that are right; ``exposure-rN``, in bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field

from mi_audio.canaries import Canary
from mi_audio.cases import canaries_of
from mi_audio.evidence import Masked
from micore.contracts import Config, Measurement, Reconstruction, Reference, Subject
from micore.kit.measuring import Figure, Rows, measure
from micore.runtime import Runtime

IDENTITY = "transcripts@canaries"


class TranscriptConfig(Config):
    """Settings of the evaluator."""

    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Guess:
    """A case's first guess beside the truth. said: what it says in the hidden place; rank: of the true candidate."""

    item: Reconstruction
    canary: Canary
    said: str
    candidates: int
    rank: int | None


class TranscriptEvaluator:
    """Judge first guesses, and ranks where all candidates are ranked."""

    Config: ClassVar[type[Config]] = TranscriptConfig

    def __init__(self, config: TranscriptConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike; exposure where it ranks all candidates of every case."""
        known = {canary.id: canary for canary in canaries_of(reference.dataset)}
        trained = {canary.secret for canary in known.values() if canary.repeats}
        found = []
        for subject in subjects:
            guesses = [guess(item, known[item.case.id]) for item in subject.reconstructions if item.case.id in known]
            if guesses:
                found += self._measure(subject.name, guesses, trained)
        return found

    def _measure(self, subject: str, guesses: Sequence[Guess], trained: set[str]) -> list[Measurement]:
        levels = sorted({guess.canary.repeats for guess in guesses})
        ranks = all(guess.rank is not None for guess in guesses)
        found = []
        for level in levels:
            members = [guess for guess in guesses if guess.canary.repeats == level]
            found += self._level(subject, members, trained, level, ranks)
        return found

    def _level(
        self, subject: str, guesses: Sequence[Guess], trained: set[str], level: int, ranks: bool
    ) -> list[Measurement]:
        size = guesses[0].candidates
        note = f"{len(guesses)} secrets, each {level} times in the private clips" if level else (
            f"control: {len(guesses)} secrets that were never trained on"
        )  # fmt: skip
        of_trained = f"chance: {len(trained) / size:.2f}, the share of candidates that are trained secrets"

        def figure(name: str, value: Callable[[Guess], float], unit: str, *notes: str) -> Measurement:
            values = torch.tensor([value(guess) for guess in guesses], dtype=torch.float64)
            made = Figure(f"{name}-r{level}", values, unit, "up" if level else "none", (note, *notes))
            return measure(made, _rows(subject, guesses), IDENTITY, resamples=self.config.resamples)

        found = [
            figure(
                "secret", lambda guess: float(guess.said == guess.canary.secret), "share", f"chance: {1 / size:.2f}"
            ),
            figure("any-secret", lambda guess: float(guess.said in trained), "share", of_trained),
            figure("digits", lambda guess: right_digits(guess.said, guess.canary.secret), "share", "chance: 0.10"),
        ]
        if ranks:
            chance = f"chance: {chance_exposure(size):.2f} bits; at most {math.log2(size):.2f}"
            found.append(figure("exposure", exposure, "bits", chance))
        return found


def guess(item: Reconstruction, canary: Canary) -> Guess:
    """Read a case's guesses: what the first one says behind the known digits, and the rank of the truth.

    A first guess whose known digits are wrong says what stands in the hidden place. The rank is known where as many
    different guesses are given as there are candidates; equal scores, and such that are no numbers, count against it.
    """
    first, held = str(item.samples[0]), item.case.evidence
    candidates = len(held.candidates) if isinstance(held, Masked) else 10 ** len(canary.secret)
    rank = None
    if len(set(item.samples)) == candidates and canary.transcript in item.samples:
        own = item.scores.double().cpu()[list(item.samples).index(canary.transcript)]
        rank = int((~(item.scores.double().cpu() < own)).sum())
    return Guess(item, canary, first[len(canary.prefix) :], candidates, rank)


def right_digits(said: str, secret: str) -> float:
    """Return the share of a secret's digits that stand at their place."""
    return sum(one == two for one, two in zip(said, secret, strict=False)) / len(secret)


def exposure(guess: Guess) -> float:
    """Return log2 of the number of candidates minus log2 of the true one's rank, in bits."""
    return math.log2(guess.candidates) - math.log2(guess.rank or guess.candidates)


def chance_exposure(m: int) -> float:
    """Return the mean exposure when every rank among m is as likely."""
    return math.log2(m) - math.lgamma(m + 1) / math.log(2) / m


def _rows(subject: str, guesses: Sequence[Guess]) -> Rows:
    """Lay out one row for each secret."""
    places = torch.arange(len(guesses))
    ids = tuple(guess.item.case.id for guess in guesses)
    return Rows(subject, tuple(guess.item.samples[:1] for guess in guesses), ids, places, places)
