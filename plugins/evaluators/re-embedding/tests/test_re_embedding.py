"""Rare words against hand-made figures, an encoder of the user's, and what may not judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mi_evaluator_re_embedding import evaluator
from mi_evaluator_re_embedding.evaluator import ReembeddingConfig, ReembeddingEvaluator
from mi_evaluator_re_embedding.rare_words import RareWords, terms
from micore.artifacts import Bundle
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import DataError, ModelError
from micore.registry import Registry
from micore.runtime import Runtime
from micore.testing.lab import Lab

TEXTS = ("ann lee lives in bonn", "bob ray lives in rome", "eve moor lives in oslo")
PUBLIC = ("kim park lives in york", "max berg lives in bern", "lea wolf lives in kiel", "tom dale lives in lodz")


class Texts:
    """A data set of which only texts are asked."""

    def split(self, name: str) -> Any:
        if name != "public":
            raise DataError(name)
        return Public()


class Public:
    """Its public texts."""

    def __len__(self) -> int:
        return len(PUBLIC)

    def take(self, rows: Sequence[int]) -> list[str]:
        return [PUBLIC[row] for row in rows]


def subject(samples: Sequence[Sequence[str]], name: str = "attack") -> Subject:
    items = [
        Reconstruction(case=Case(id=f"c{row}", goal="instance"), samples=list(some), scores=torch.zeros(len(some)))
        for row, some in enumerate(samples)
    ]
    return Subject(name=name, reconstructions=items)


def reference(**changes: Any) -> Reference:
    truth = {f"c{row}": Truth(sample=[text], label=0) for row, text in enumerate(TEXTS)}
    return Reference(**{"modality": SimpleNamespace(), "dataset": Texts(), "target": None, "truth": truth, **changes})


def measure(*subjects: Subject, given: Reference | None = None, **options: Any) -> dict[str, Measurement]:
    judge = ReembeddingEvaluator(ReembeddingConfig(resamples=200, **options))
    assert isinstance(judge, Evaluator)
    found = judge.evaluate(subjects, given or reference(), Runtime.create("cpu"))
    assert {item.name for item in found} <= {"re-embedding-cosine"}
    return {item.subject: item for item in found}


# rare words -------------------------------------------------------------------------------------------------


def test_cosines_are_those_of_the_formula() -> None:
    judge = RareWords(["a b", "a c", "a d"])
    common, rare = 1.0, math.log(4 / 2) + 1  # "a" stands in all three texts, "b" and "a b" in one
    one, two = [common, rare, rare], [common, rare, rare]
    expected = common**2 / (math.hypot(*one) * math.hypot(*two))
    assert judge.cosines(["a b"], ["a c"]).item() == pytest.approx(expected)
    assert judge.cosines(["a b", "", "q"], ["A  b", "a", "a"]).tolist() == pytest.approx([1, 0, 0])


def test_pairs_of_words_tell_their_order() -> None:
    assert terms("Ann met Bob") == ["ann", "met", "bob", "ann met", "met bob"]
    assert RareWords(PUBLIC).cosines(["ann met bob"], ["bob met ann"]).item() < 0.9


def test_the_right_form_is_worth_less_than_the_right_person() -> None:
    form, person = measure(subject([[text] for text in PUBLIC[:3]])), measure(subject([[t[:-5]] for t in TEXTS]))
    assert form["attack"].value < 0.4 < person["attack"].value


def test_a_perfect_attack_has_one_and_noise_nothing() -> None:
    found = measure(subject([[text] for text in TEXTS]), subject([["qx"], [], [""]], "noise"))
    assert found["attack"].value == pytest.approx(1)
    assert (found["attack"].n, found["attack"].clusters, found["attack"].unit) == (3, 3, "cosine")
    assert found["attack"].evaluator == "re-embedding@rare-words"
    assert found["noise"].value == 0


def test_only_the_best_sample_counts_and_cases_without_a_truth_are_left_out() -> None:
    assert measure(subject([["qx", text] for text in TEXTS]))["attack"].value == 0
    assert measure(subject([["qx"]]), given=reference(truth={})) == {}


# an encoder of the user's -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Any:
    lab = Lab(Registry.discover())
    setting = lab.setting("text", ("instance",), ("encoder",))
    return SimpleNamespace(
        bundle=lab.bundle(setting), modality=lab.modality("text"), dataset=setting.dataset, module=lab.module(setting)
    )


def saved(bundle: Bundle, directory: Path) -> Path:
    path = directory / "encoder.safetensors"
    bundle.save(path)
    return path


def test_an_encoder_of_the_users_judges(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "restore_network", lambda *_: (toy.module, []))  # a toy is no model of the registry
    private = list(toy.dataset.split("private").take(range(3)))
    truth = {f"c{row}": Truth(sample=[text], label=0) for row, text in enumerate(private)}
    given = reference(modality=toy.modality, truth=truth)
    same, other = subject([[text] for text in private]), subject([[text] for text in private[::-1]], "other")
    found = measure(
        same, other, subject([[], ["", ""], [""]], "empty"), given=given, encoder=saved(toy.bundle, tmp_path)
    )
    assert found["attack"].value == pytest.approx(1, abs=1e-5)
    assert found["other"].value < 0.999
    assert found["empty"].value == 0
    assert found["attack"].evaluator == f"re-embedding@{toy.bundle.fingerprint[:8]}"


def test_the_target_may_not_judge_itself(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is the target itself"):
        measure(
            subject([[text] for text in TEXTS]), given=reference(modality=toy.modality, target=toy.bundle),
            encoder=saved(toy.bundle, tmp_path),
        )  # fmt: skip


def test_what_is_no_encoder_may_not_judge(toy: Any, tmp_path: Path) -> None:
    lab = Lab(Registry.discover())
    classifier = lab.bundle(lab.setting("text", ("class",)))
    with pytest.raises(ModelError, match="is a classifier of text, and re-embedding needs an encoder"):
        measure(subject([["a"]]), given=reference(modality=toy.modality), encoder=saved(classifier, tmp_path))
