"""Ranks and confidences against independent oracles, and the evaluator as the core calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor, nn

from mi_evaluator_accuracy.evaluator import AccuracyConfig, AccuracyEvaluator, figures, rank_of_label
from micore.contracts import Case, Evaluator, EvaluatorModel, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import DataError, ModelError
from micore.runs.subjects import wrong_label
from micore.runtime import Runtime

TENSORS = SimpleNamespace(join=torch.cat)
"""All that these tests need of a modality."""

K = 8


def random_rows(seed: int, n: int = 60, classes: int = K) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(n, classes)), dtype=torch.float32)
    return logits, torch.tensor(rng.integers(classes, size=n))


# kernels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rank_is_that_of_a_loop(seed: int) -> None:
    logits, labels = random_rows(seed)
    expected = [
        sorted(range(K), key=lambda k, row=row: -row[k]).index(label)
        for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True)
    ]
    assert rank_of_label(logits, labels).tolist() == expected


@pytest.mark.parametrize("k", [1, 5])
def test_accuracy_is_that_of_scikit_learn(k: int) -> None:
    logits, labels = random_rows(3)
    found = {figure.name: figure.values for figure in figures(logits, labels)}
    expected = top_k_accuracy_score(labels.numpy(), logits.double().numpy(), k=k, labels=np.arange(K))
    assert float(found[f"accuracy@{k}"].mean()) == pytest.approx(expected)


def test_ties_count_against_the_sample() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 1.0]])
    assert rank_of_label(logits, torch.tensor([0, 2, 1])).tolist() == [1, 2, 2]
    constant = figures(torch.zeros(4, K), torch.arange(4))
    assert [float(figure.values.sum()) for figure in constant[:2]] == [0.0, 0.0]


@pytest.mark.parametrize(("classes", "offered"), [(2, False), (5, False), (6, True)])
def test_top_5_is_left_out_where_it_says_little(classes: int, offered: bool) -> None:
    names = [figure.name for figure in figures(*random_rows(0, classes=classes))]
    assert ("accuracy@5" in names) is offered
    assert {"accuracy@1", "confidence"} <= set(names)


def test_confidence_is_the_softmax_in_float64() -> None:
    logits, labels = random_rows(4)
    logits = logits * 30  # far apart, where float32 loses small probabilities
    expected = softmax(logits.double().numpy(), axis=1)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(figures(logits, labels)[-1].values.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("spoiled", [[torch.nan] * K, [torch.nan] + [0.0] * (K - 1), [torch.inf] + [0.0] * (K - 1)])
@pytest.mark.parametrize("label", [0, 1])
def test_an_unreadable_row_is_a_miss(spoiled: list[float], label: int) -> None:
    logits, labels = random_rows(5, n=3)
    logits[1], labels[1] = torch.tensor(spoiled), label
    assert rank_of_label(logits, labels)[1] == K - 1
    for figure in figures(logits, labels):
        assert figure.values[1] == 0.0
        assert figure.values.isfinite().all()
        assert "1 samples that the judge cannot read count as misses" in figure.notes


# the evaluator --------------------------------------------------------------------------------------------


class Echo(nn.Module):
    """A judge whose logits are the sample itself."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def reference(*, judged: bool = True, notes: tuple[str, ...] = ()) -> Reference:
    bundle = SimpleNamespace(fingerprint="0123456789abcdef")
    model = EvaluatorModel(bundle=cast("object", bundle), module=Echo(), adapter=lambda s: s, notes=notes)  # type: ignore[arg-type]
    unused = cast("object", None)
    return Reference(modality=TENSORS, dataset=unused, target=None, evaluator_model=model if judged else None)  # type: ignore[arg-type]


def subject(*seen: Sequence[int], name: str = "attack") -> Subject:
    """Make one case per argument: class i, with a sample that the judge takes for each class given."""
    reconstructions = [
        Reconstruction(
            case=Case(id=f"class-{label}", goal="class", label=label),
            samples=3 * nn.functional.one_hot(torch.tensor(list(classes), dtype=torch.int64), K).float(),
            scores=torch.zeros(len(classes)),
        )
        for label, classes in enumerate(seen)
    ]
    return Subject(name=name, reconstructions=reconstructions)


def measure(
    *subjects: Subject, batch_size: int = 256, notes: tuple[str, ...] = ()
) -> dict[tuple[str, str], Measurement]:
    evaluator = AccuracyEvaluator(AccuracyConfig(batch_size=batch_size, resamples=200))
    found = evaluator.evaluate(subjects, reference(notes=notes), Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


def test_a_value_is_the_mean_over_classes_of_unequal_size() -> None:
    found = measure(subject([0] * 9 + [1], [1, 0], [5]))["attack", "accuracy@1"]
    assert found.per_case == pytest.approx({"class-0": 0.9, "class-1": 0.5, "class-2": 0.0})
    assert found.value == pytest.approx((0.9 + 0.5 + 0.0) / 3)
    assert (found.n, found.clusters, found.direction, found.unit) == (13, 3, "up", "share")
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high


def test_wrong_labels_score_lower() -> None:
    right = subject([0, 0], [1, 1], [2, 0])
    wrong = Subject(name="wrong-label", reconstructions=wrong_label(right.reconstructions, 3))
    found = measure(right, wrong)
    for name in ("accuracy@1", "confidence"):
        assert found["wrong-label", name].value < found["attack", name].value
    assert found["attack", "accuracy@1"].value == pytest.approx(5 / 6)
    assert found["wrong-label", "accuracy@1"].value == pytest.approx(1 / 6)


def test_notes_say_what_the_judge_knows_and_shares() -> None:
    shared = "evaluator model shares its architecture with the target"
    for item in measure(subject([0]), notes=(shared,)).values():
        assert item.notes == (f"judge knows {K} classes", shared)
        assert item.evaluator == "accuracy@0123456789ab"


def test_batches_do_not_matter() -> None:
    attack = subject([0, 1, 2], [1], [2, 2, 0, 5, 7])
    assert measure(attack, batch_size=1) == measure(attack, batch_size=64)


def test_unreadable_samples_do_not_raise_a_figure() -> None:
    """A spoiled sample counts no better than a wrong one, in each figure."""
    wrong, spoiled = subject([0, 7], [1, 1]), subject([0, 7], [1, 1])
    spoiled.reconstructions[0].samples[1] = torch.nan
    before, after = measure(wrong), measure(spoiled)
    for key, item in after.items():
        assert item.n == 4
        assert item.value <= before[key].value
        assert any("cannot read" in note for note in item.notes)
    assert after["attack", "accuracy@1"].value == 0.75
    nothing = subject([0], [1])
    for item in nothing.reconstructions:
        item.samples.fill_(torch.nan)
    assert {item.value for item in measure(nothing).values()} == {0.0}


def test_what_cannot_be_judged_is_refused() -> None:
    evaluator, runtime = AccuracyEvaluator(AccuracyConfig()), Runtime.create("cpu")
    assert isinstance(evaluator, Evaluator)
    with pytest.raises(ModelError, match="needs an evaluator model"):
        evaluator.evaluate([subject([0])], reference(judged=False), runtime)
    with pytest.raises(DataError, match="no samples of a class"):
        evaluator.evaluate([subject([], [])], reference(), runtime)


# goal instance --------------------------------------------------------------------------------------------


def test_an_instance_is_of_its_true_class() -> None:
    """The adversary did not know the class; the judge's truth does."""
    reconstructions = [
        Reconstruction(case=Case(id=f"image-{row}", goal="instance"), samples=item.samples, scores=item.scores)
        for row, item in enumerate(subject([4, 4, 0], [2], [4]).reconstructions)
    ]
    truth = {f"image-{row}": Truth(sample=None, label=label) for row, label in enumerate((4, 2, 4))}
    judged = replace(reference(), truth=truth)
    evaluator = AccuracyEvaluator(AccuracyConfig(resamples=200))
    subjects = [Subject(name="attack", reconstructions=reconstructions)]
    found = {item.name: item for item in evaluator.evaluate(subjects, judged, Runtime.create("cpu"))}
    item = found["accuracy@1"]
    assert item.per_case == pytest.approx({"image-0": 2 / 3, "image-1": 1.0, "image-2": 1.0})
    assert item.value == pytest.approx((0.75 + 1) / 2)  # classes 4 (four samples) and 2 (one)
    assert (item.n, item.clusters) == (5, 2)
    with pytest.raises(DataError, match="cases without a label"):
        evaluator.evaluate(subjects, reference(), Runtime.create("cpu"))


def test_samples_that_are_no_tensors_are_judged_too() -> None:
    """Texts: the judge's adapter makes tensors of them."""
    items = [
        Reconstruction(case=Case(id=f"class-{k}", goal="class", label=k), samples=["x" * k], scores=torch.zeros(1))
        for k in range(3)
    ]
    judge = EvaluatorModel(
        bundle=cast(Any, SimpleNamespace(fingerprint="0" * 64)), module=nn.Identity(),
        adapter=lambda texts: nn.functional.one_hot(torch.tensor([len(text) for text in texts]), 3).float(),
    )  # fmt: skip
    texts = SimpleNamespace(join=lambda parts: [text for part in parts for text in part])
    reference = Reference(modality=texts, dataset=SimpleNamespace(), target=None, evaluator_model=judge)
    subject = Subject(name="attack", reconstructions=items)
    found = AccuracyEvaluator(AccuracyConfig()).evaluate([subject], reference, Runtime.create("cpu"))
    assert {item.value for item in found if item.name == "accuracy@1"} == {1.0}
