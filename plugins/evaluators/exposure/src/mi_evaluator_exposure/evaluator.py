"""Exposure of planted secrets: how far they stand out among secrets of their kind that were never trained on.

An attack ranks all candidates of a case, the true text among them, by the log-likelihood that the target gives to each.
It needs no luck of sampling, so it is the most sensitive measure of what a language model remembers of a text.

- ``exposure``: log2 of the number of candidates minus log2 of the true one's rank, in bits; ``exposure-repeats-N``: of
  the secrets that stand N times in the training texts; ``rank-1``: the share that is ranked first.
- ``exposure-extrapolated``: the exposure among more candidates than were tried, from a distribution fitted to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from mi_evaluator_exposure.estimates import (
    Floats,
    expected_by_chance,
    extrapolated,
    interpolated,
    rank,
    rank_correlation,
)
from mi_text.cases import CANARY, facts_of, text_split
from mi_text.datasets.repetition import repetitions
from mi_text.evidence import Hole
from micore.contracts import Config, Interval, Measurement, Reconstruction, Reference, Subject
from micore.errors import DataError
from micore.kit.measuring import Figure, Rows, measure
from micore.kit.statistics import percentile_interval
from micore.runs.subjects import ATTACK, NO_TARGET, SNAPSHOT
from micore.runtime import Runtime, derive_seed

IDENTITY = "exposure@ranks"
RANKING = (ATTACK, NO_TARGET)
"""Subjects that must rank candidates; other controls, such as ``holdout``, may hold other texts."""


class ExposureConfig(Config):
    """Settings of the evaluator."""

    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Standing:
    """How one planted secret stands among the candidates; exposures in bits.

    candidates: how many there are; repeats: how often its text stands in the private texts; most: log2 of the space
    of secrets.
    """

    item: Reconstruction
    candidates: int
    repeats: int
    rank: int
    exposure: float
    extrapolated: float
    most: float


class ExposureEvaluator:
    """Judge how far planted secrets stand out."""

    Config: ClassVar[type[Config]] = ExposureConfig

    def __init__(self, config: ExposureConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject that ranks candidates alike; nothing where no case is of a planted secret.

        Earlier stands of a search have no scores, so they are left out, as is an attack that keeps one guess alone.

        Raises: DataError when the true candidate is not among several that the attack gives back.
        """
        found = []
        for subject in subjects:
            items = [
                item for item in subject.reconstructions if _is_of_secret(item) and item.case.id in reference.truth
            ]
            several = all(len(item.samples) > 1 for item in items)
            ranks = several and (subject.name in RANKING or all(_ranks(item, reference) for item in items))
            if items and ranks and not subject.name.startswith(SNAPSHOT):
                counts = repetitions(text_split(reference.dataset, "private"))
                found += self._measure(subject.name, [standing(item, reference, counts) for item in items])
        return found

    def _measure(self, subject: str, standings: Sequence[Standing]) -> list[Measurement]:
        exposures = [item.exposure for item in standings]
        fitted = [item.extrapolated for item in standings]
        first = [float(item.rank == 1) for item in standings]
        found = [
            self._mean("exposure", subject, standings, exposures, "bits", *_saturation(standings)),
            self._mean("exposure-extrapolated", subject, standings, fitted, "bits", *_clipping(standings)),
            self._mean("rank-1", subject, standings, first, "share", _sizes(standings)),
        ]
        levels = sorted({item.repeats for item in standings})
        for level in levels:
            members = [item for item in standings if item.repeats == level]
            values = [item.exposure for item in members]
            found.append(self._mean(f"exposure-repeats-{level}", subject, members, values, "bits"))
        return found if len(levels) == 1 else [*found, self._correlation(subject, standings)]

    def _mean(
        self, name: str, subject: str, standings: Sequence[Standing], values: Sequence[float], unit: str, *notes: str
    ) -> Measurement:
        """Return a mean over secrets, with a bootstrap interval over these."""
        figure = Figure(name, torch.tensor(values, dtype=torch.float64), unit, "up", notes)
        return measure(figure, _rows(subject, standings), IDENTITY, resamples=self.config.resamples)

    def _correlation(self, subject: str, standings: Sequence[Standing]) -> Measurement:
        """Return the rank correlation of exposure and repetitions, with a bootstrap interval over secrets."""
        name, n = "repeats-correlation", len(standings)
        repeats = np.array([item.repeats for item in standings], dtype=np.float64)
        exposures = np.array([item.exposure for item in standings])
        rng = np.random.default_rng(derive_seed(IDENTITY, name, subject))
        drawn = rng.integers(n, size=(self.config.resamples, n))
        value = float(rank_correlation(repeats, exposures))
        notes = ("Spearman's; equal exposures at the most that can be told lower it",)
        return Measurement(
            name=name, subject=subject, value=value,
            interval=_interval(rank_correlation(repeats[drawn], exposures[drawn]), value),
            n=n, clusters=n, unit="correlation", direction="none", evaluator=IDENTITY, notes=notes,
        )  # fmt: skip


def standing(item: Reconstruction, reference: Reference, counts: Mapping[str, int]) -> Standing:
    """Find the true text among the candidates of a case, and how far it stands out.

    Raises: DataError when the true text is not among the candidates.
    """
    true = str(reference.truth[item.case.id].sample[0])
    place = _place_of(true, item)
    scores = item.scores.detach().double().cpu().numpy()
    own, others = float(scores[place]), np.delete(scores, place)
    digits = sum(sign.isdecimal() for sign in facts_of(item.case, reference.dataset).get(CANARY, ""))
    most = max(digits * math.log2(10), math.log2(len(scores)))
    return Standing(
        item=item, candidates=len(scores), repeats=counts[true], rank=rank(own, others),
        exposure=interpolated(own, others), extrapolated=extrapolated(own, others, most), most=most,
    )  # fmt: skip


def _place_of(true: str, item: Reconstruction) -> int:
    hint = "exposure is of attacks that give back all candidates of the evidence, each with its log-likelihood"
    places = [place for place, text in enumerate(item.samples) if text.split() == true.split()]
    if not places:
        raise DataError(f"exposure: the true text of case {item.case.id} is not among its candidates", hint=hint)
    return places[0]


def _ranks(item: Reconstruction, reference: Reference) -> bool:
    """Tell whether the true text of a case is among several samples."""
    true = str(reference.truth[item.case.id].sample[0]).split()
    return len(item.samples) > 1 and any(text.split() == true for text in item.samples)


def _is_of_secret(item: Reconstruction) -> bool:
    return isinstance(item.case.evidence, Hole) and item.case.evidence.kind == CANARY


def _rows(subject: str, standings: Sequence[Standing]) -> Rows:
    """Lay out one row for each secret, whatever the number of its candidates."""
    places = torch.arange(len(standings))
    ids = tuple(item.item.case.id for item in standings)
    return Rows(subject, tuple(item.item.samples[:1] for item in standings), ids, places, places)


def _sizes(standings: Sequence[Standing]) -> str:
    sizes = [item.candidates for item in standings]
    return (
        f"among {min(sizes)} to {max(sizes)} candidates" if min(sizes) < max(sizes) else f"among {sizes[0]} candidates"
    )


def _saturation(standings: Sequence[Standing]) -> tuple[str, ...]:
    first = sum(item.rank == 1 for item in standings)
    chance = sum(expected_by_chance(item.candidates) for item in standings) / len(standings)
    most = max(math.log2(item.candidates) for item in standings)
    return (
        f"{_sizes(standings)}: at most {most:.1f} bits, which {first} of {len(standings)} secrets reach",
        f"chance: {chance:.2f} bits",
    )


def _clipping(standings: Sequence[Standing]) -> tuple[str, ...]:
    clipped = sum(item.extrapolated == item.most for item in standings)
    fit = "by a skew-normal fit to the other candidates"
    return (f"{fit}; {clipped} of {len(standings)} secrets reach log2 of their space, the most there is",)


def _interval(resampled: Floats, value: float) -> Interval | None:
    """Return a percentile interval that holds the value; None where few resamples vary."""
    sound = resampled[np.isfinite(resampled)]
    if not math.isfinite(value) or len(sound) < len(resampled) / 2:
        return None
    low, high = percentile_interval(sound)
    return Interval(low=min(low, value), high=max(high, value))
