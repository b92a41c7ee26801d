"""The words of recovered texts against sacrebleu, hand-made texts, and the evaluator as the core calls it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from sacrebleu import sentence_bleu as reference_bleu

from mi_evaluator_text_overlap.evaluator import TextOverlapConfig, TextOverlapEvaluator, sentence_bleu
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject, Truth
from micore.runtime import Runtime

TEXTS = (
    "Ann Lee lives in Bonn and works as a baker.",
    "Please call Bob Ray at 555-0199 before noon.",
    "The patient Eve Moor was treated for asthma.",
    "Transfer $1,200 to Kim Park by Friday, please.",
)
NAMES = {"exact-match", "token-f1", "token-precision", "token-recall", "rouge-l", "bleu"}


def subject(samples: Sequence[Sequence[str]], name: str = "attack", goal: str = "instance") -> Subject:
    items = [
        Reconstruction(case=Case(id=f"embedding-{row}", goal=goal), samples=list(some), scores=torch.zeros(len(some)))
        for row, some in enumerate(samples)
    ]
    return Subject(name=name, reconstructions=items)


def measure(*subjects: Subject, known: int = len(TEXTS)) -> dict[tuple[str, str], Measurement]:
    truth = {f"embedding-{row}": Truth(sample=[TEXTS[row]], label=0) for row in range(known)}
    unused = SimpleNamespace()
    reference = Reference(modality=unused, dataset=unused, target=None, truth=truth)
    evaluator = TextOverlapEvaluator(TextOverlapConfig(resamples=200))
    assert isinstance(evaluator, Evaluator)
    found = evaluator.evaluate(subjects, reference, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


PERFECT = [[text] for text in TEXTS]
NOISE = [["qx zv"], ["kk"], ["pw pw pw"], ["ioo"]]


@pytest.mark.parametrize("goal", ["instance", "prompt", "corpus"])
def test_a_perfect_attack_has_everything_and_noise_nothing(goal: str) -> None:
    found = measure(subject(PERFECT, goal=goal), subject(NOISE, "noise", goal))
    assert {name for _, name in found} == NAMES
    for name in NAMES:
        item = found["attack", name]
        assert item.value == (100.0 if name == "bleu" else 1.0)
        assert found["noise", name].value == pytest.approx(0.0, abs=1e-9)
        assert (item.n, item.clusters, item.direction) == (4, 4, "up")
        assert item.unit == ("points" if name == "bleu" else "share")
        assert item.evaluator.split("@")[0] == "text-overlap"


def test_values_are_means_over_cases() -> None:
    guesses = [[TEXTS[0].upper()], ["please call bob ray"], [TEXTS[2] + " x x"], [TEXTS[0]]]
    found = measure(subject(guesses))
    assert found["attack", "exact-match"].per_case == {
        "embedding-0": 1.0, "embedding-1": 0.0, "embedding-2": 0.0, "embedding-3": 0.0,
    }  # fmt: skip
    # 11 words in text 1 (with -, 0199, and the dot), 9 in text 2
    assert found["attack", "token-precision"].per_case["embedding-1"] == 1.0
    assert found["attack", "token-recall"].per_case["embedding-1"] == pytest.approx(4 / 11)
    assert found["attack", "token-precision"].per_case["embedding-2"] == pytest.approx(9 / 11)
    assert found["attack", "token-recall"].per_case["embedding-2"] == 1.0
    for name in NAMES:
        item = found["attack", name]
        assert item.value == pytest.approx(sum(item.per_case.values()) / 4)
        assert item.interval is not None
        assert item.interval.low <= item.value <= item.interval.high


def test_only_the_best_sample_counts() -> None:
    padded = [[*some, text] for some, text in zip(NOISE, TEXTS, strict=True)]
    first, alone = measure(subject(padded)), measure(subject(NOISE))
    assert {key: item.value for key, item in first.items()} == {key: item.value for key, item in alone.items()}


def test_one_class_does_not_make_one_unit() -> None:
    """All texts of a corpus may have one label: cases are the units none the less."""
    assert measure(subject([*PERFECT[:2], *NOISE[2:]]))["attack", "token-f1"].clusters == 4


def test_bleu_is_that_of_sacrebleu_for_each_text() -> None:
    guesses = ["Ann Lee lives in Rome and works as a cook.", "call Bob Ray at 555-0199", TEXTS[2].lower(), "Transfer"]
    expected = [reference_bleu(guess, [true]).score for guess, true in zip(guesses, TEXTS, strict=True)]
    assert sentence_bleu(guesses, TEXTS) == pytest.approx(expected)
    assert 0 < expected[0] < 100
    found = measure(subject([[guess] for guess in guesses]))["attack", "bleu"]
    assert found.value == pytest.approx(sum(expected) / 4)


def test_bleu_of_short_equal_texts_is_full() -> None:
    assert sentence_bleu(["Ann Lee", "yes", ""], ["Ann Lee", "yes", "no"]) == pytest.approx([100.0, 100.0, 0.0])


def test_every_subject_is_measured_alike() -> None:
    found = measure(subject(PERFECT), subject(PERFECT, "no-target"), subject(PERFECT, "holdout"))
    for name in NAMES:
        assert len({found[of, name].value for of in ("attack", "no-target", "holdout")}) == 1


def test_a_case_without_samples_is_a_miss() -> None:
    found = measure(subject([[], *PERFECT[1:]]))
    assert found["attack", "token-f1"].value == pytest.approx(3 / 4)
    assert any("1 cases without a sample" in note for note in found["attack", "token-f1"].notes)


def test_cases_without_a_truth_are_left_out() -> None:
    assert measure(subject(PERFECT), known=2)["attack", "token-f1"].n == 2
    assert measure(subject(PERFECT), known=0) == {}
