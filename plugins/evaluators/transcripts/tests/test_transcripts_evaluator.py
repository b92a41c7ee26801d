"""The evaluator of transcripts, by hand."""

from __future__ import annotations

import math
from itertools import groupby
from types import SimpleNamespace

import pytest
import torch

from mi_audio.canaries import Canary
from mi_audio.evidence import Masked
from mi_evaluator_transcripts.evaluator import TranscriptConfig, TranscriptEvaluator, chance_exposure, right_digits
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject
from micore.runtime import Runtime

CANDIDATES = tuple(f"{number:02d}" for number in range(100))
CANARIES = tuple(
    Canary(number=n, split="private" if r else "holdout", row=n, repeats=r, span=(0, 1), prefix=f"{n}0", secret=secret)
    for n, (r, secret) in enumerate([(1, "12"), (1, "34"), (4, "56"), (4, "78"), (0, "90"), (0, "21")])
)


def case(canary: Canary) -> Case:
    held = Masked(waveform=torch.zeros(2), span=(0, 1), prefix=canary.prefix, hidden=2, candidates=CANDIDATES)
    return Case(id=canary.id, goal="corpus", evidence=held)


def first(*guesses: str, name: str = "attack") -> Subject:
    """Give one guess for each canary."""
    items = [
        Reconstruction(case=case(canary), samples=[canary.prefix + said], scores=torch.zeros(1))
        for canary, said in zip(CANARIES, guesses, strict=True)
    ]
    return Subject(name=name, reconstructions=items)


def ranking(*ranks: int) -> Subject:
    """Rank all candidates, the true ones so."""
    items = []
    for canary, rank in zip(CANARIES, ranks, strict=True):
        others = [text for text in CANDIDATES if text != canary.secret]
        order = [*others[: rank - 1], canary.secret, *others[rank - 1 :]]
        samples = [canary.prefix + text for text in order]
        items.append(Reconstruction(case=case(canary), samples=samples, scores=-torch.arange(100.0)))
    return Subject(name="attack", reconstructions=items)


def measured(*subjects: Subject) -> dict[str, Measurement]:
    reference = Reference(modality=SimpleNamespace(), dataset=SimpleNamespace(canaries=CANARIES), target=None)  # type: ignore[arg-type]
    evaluator = TranscriptEvaluator(TranscriptConfig(resamples=100))
    assert isinstance(evaluator, Evaluator)
    return {item.name: item for item in evaluator.evaluate(subjects, reference, Runtime.create("cpu"))}


def test_rates_by_repetitions():
    found = measured(first("12", "35", "5", "34", "09", "21"))
    values = {name: item.value for name, item in found.items()}
    assert values == {
        "secret-r0": 0.5, "any-secret-r0": 0.0, "digits-r0": 0.5,
        "secret-r1": 0.5, "any-secret-r1": 0.5, "digits-r1": 0.75,
        "secret-r4": 0.0, "any-secret-r4": 0.5, "digits-r4": 0.25,
    }  # fmt: skip
    assert {item.n for item in found.values()} == {2}
    assert found["secret-r1"].per_case == {"canary-0-r1": 1.0, "canary-1-r1": 0.0}
    assert {name for name, item in found.items() if item.direction == "none"} == {
        "secret-r0",
        "any-secret-r0",
        "digits-r0",
    }
    assert "chance: 0.04" in found["any-secret-r1"].notes[1]
    assert "control" in found["secret-r0"].notes[0]


def test_exposure_is_of_ranks():
    found = measured(ranking(1, 10, 2, 1, 100, 50))
    assert found["exposure-r1"].value == pytest.approx((math.log2(100) + math.log2(10)) / 2)
    assert found["exposure-r4"].value == pytest.approx(math.log2(100) - 0.5)
    assert found["exposure-r0"].value == pytest.approx((0 + 1) / 2)
    assert found["secret-r1"].value == 0.5


def test_equal_scores_count_against_the_secret():
    subject = ranking(1, 1, 1, 1, 1, 1)
    for item in subject.reconstructions:
        item.scores.zero_()
    assert measured(subject)["exposure-r4"].value == 0.0


def test_exposure_by_chance_is_the_mean_over_ranks():
    assert chance_exposure(100) == pytest.approx(sum(math.log2(100 / rank) for rank in range(1, 101)) / 100)


def test_incomplete_rankings_and_other_cases_have_no_exposure():
    assert not any(name.startswith("exposure") for name in measured(first(*["12"] * 6)))
    other = Reconstruction(case=Case(id="clip-0", goal="instance"), samples=["1"], scores=torch.zeros(1))
    assert measured(Subject(name="attack", reconstructions=[other])) == {}


def test_levels_come_in_order_for_each_subject_alike():
    one, other = first(*["12"] * 6), first(*["34"] * 6, name="random-guess")
    reference = Reference(modality=SimpleNamespace(), dataset=SimpleNamespace(canaries=CANARIES), target=None)  # type: ignore[arg-type]
    found = TranscriptEvaluator(TranscriptConfig()).evaluate([one, other], reference, Runtime.create("cpu"))
    names = {subject: [item.name for item in group] for subject, group in groupby(found, lambda item: item.subject)}
    assert names["attack"] == names["random-guess"]


@pytest.mark.parametrize(("said", "share"), [("12", 1.0), ("1", 0.5), ("21", 0.0), ("", 0.0), ("129", 1.0)])
def test_digits_count_at_their_place(said, share):
    assert right_digits(said, "12") == share
