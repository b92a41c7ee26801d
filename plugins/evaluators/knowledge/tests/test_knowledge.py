"""Students of real samples know the classes, students of noise do not, and none is tested on what it learned."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from mi_evaluator_knowledge.evaluator import KnowledgeConfig, KnowledgeEvaluator
from mi_evaluator_knowledge.lessons import Lessons, leaving_a_test, unseen
from mi_evaluator_knowledge.student import plan_of, taught
from micore.contracts import Case, EvaluatorModel, Reconstruction, Reference, Subject
from micore.errors import DataError, ModelError
from micore.runtime import Random, Runtime

CPU = Runtime.create("cpu")
PLAIN = SimpleNamespace(
    join=lambda parts: torch.cat(list(parts)) if isinstance(parts[0], torch.Tensor) else [x for p in parts for x in p],
    augment=lambda samples, strength, rng: samples,
)


class Split:
    """Labelled samples."""

    def __init__(self, samples, labels):
        self.samples, self.labels = samples, labels

    def __len__(self):
        return len(self.samples)

    def take(self, rows):
        return self.samples[rows]


class Data:
    """Splits by name; DataError for one that is not there."""

    def __init__(self, **splits):
        self.splits = splits

    def split(self, name):
        if name not in self.splits:
            raise DataError(f"no split {name}")
        return self.splits[name]


def network(n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n_classes))


def judge(fresh=network):
    card = SimpleNamespace(model=SimpleNamespace(name="net"))
    bundle = SimpleNamespace(fingerprint="0123456789abcdef", card=card)
    return EvaluatorModel(bundle=bundle, module=nn.Identity(), adapter=lambda samples: samples, fresh=fresh)


def subject(samples, labels, name="attack"):
    items = [
        Reconstruction(case=Case(id=f"class-{label}", goal="class", label=label), samples=samples[labels == label],
                       scores=torch.zeros(int((labels == label).sum())))
        for label in labels.unique().tolist()
    ]  # fmt: skip
    return Subject(name=name, reconstructions=items)


def measure(data, *subjects, model=None, **options):
    reference = Reference(modality=PLAIN, dataset=data, target=None, evaluator_model=model or judge())
    config = KnowledgeConfig(**{"students": 2, "steps": 120, "resamples": 200, **options})
    found = KnowledgeEvaluator(config).evaluate(subjects, reference, CPU)
    return {(item.subject, item.name): item for item in found}


@pytest.fixture(scope="module")
def digits():
    """Half of the digits 0 to 4 are private, half held out."""
    data = load_digits(n_class=5)
    samples, labels = torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)
    return Data(private=Split(samples[::2], labels[::2]), holdout=Split(samples[1::2], labels[1::2]))


def noise(n, seed, classes=5):
    return Random(seed).uniform((n * classes, 8, 8)), torch.arange(classes).repeat_interleave(n)


def some(split, n):
    rows = torch.cat([(split.labels == label).nonzero().flatten()[:n] for label in split.labels.unique()])
    return split.samples[rows], split.labels[rows]


# what is learned ------------------------------------------------------------------------------------------


def test_real_samples_teach_and_noise_and_wrong_labels_do_not(digits):
    real = some(digits.split("private"), 20)
    found = measure(
        digits, subject(*real), subject(*noise(20, 1), name="noise"),
        subject(real[0], (real[1] + 1) % 5, name="wrong-label"), subject(*some(digits.split("holdout"), 20), "holdout"),
    )  # fmt: skip
    for name in ("knowledge", "knowledge-private"):
        assert found["attack", name].value > 0.75
        assert found["holdout", name].value > 0.75
        assert 0.05 < found["noise", name].value < 0.4
        assert found["wrong-label", name].value < 0.1
        item = found["attack", name]
        assert (item.n, item.clusters, item.unit, item.direction) == (100, 5, "share", "up")
        assert set(item.per_case) == {f"class-{label}" for label in range(5)}
        assert item.value == pytest.approx(sum(item.per_case.values()) / 5)
        assert item.interval.low <= item.value <= item.interval.high
        assert item.evaluator == "knowledge@students"
        assert item.notes[:2] == ("chance 0.2", "2 students (net, from scratch), 100 samples")


def test_samples_that_are_all_alike_teach_less(digits):
    samples, labels = some(digits.split("private"), 10)
    one = torch.cat([samples[labels == label][:1].expand(10, 8, 8) for label in range(5)])
    found = measure(digits, subject(samples, labels), subject(one, labels, name="alike"))
    assert found["alike", "knowledge"].value < found["attack", "knowledge"].value - 0.05


def test_labels_may_have_gaps(digits):
    samples, labels = some(digits.split("private"), 10)
    kept = (labels == 1) | (labels == 4)
    found = measure(digits, subject(samples[kept], labels[kept]))["attack", "knowledge"]
    assert found.value > 0.9
    assert set(found.per_case) == {"class-1", "class-4"}
    assert "chance 0.5" in found.notes


# what is tested -------------------------------------------------------------------------------------------


def test_no_student_is_tested_on_what_it_learned():
    """Of labels that mean nothing a student knows those that it was told, and no others."""
    samples, labels = Random(3).uniform((100, 8, 8)), torch.arange(4).repeat(25)
    data = Data(private=Split(samples, labels), holdout=Split(samples.flip(1), labels))
    found = measure(data, subject(*some(data.split("holdout"), 25), "holdout"), steps=600, students=1)
    learned = found["holdout", "knowledge"]
    assert learned.value < 0.5
    assert learned.n == 48, "half of a class at most is learned, where all of it was given"
    assert any("52 of 100 samples not learned from" in note for note in learned.notes)
    assert any("tested on 52 samples" in note for note in learned.notes)


def test_few_real_samples_are_all_learned_from_and_left_out_of_the_test(digits):
    found = measure(digits, subject(*some(digits.split("holdout"), 10), "holdout"))["holdout", "knowledge"]
    assert found.n == 50
    assert f"tested on {len(digits.split('holdout')) - 50} samples" in found.notes[-1]
    assert not any("not learned from" in note for note in found.notes)


def test_lessons_and_test_share_no_sample():
    words = Lessons(["a", "b", "c", "d", "e"], torch.tensor([0, 0, 0, 1, 1]), PLAIN)
    test = Lessons(["c", "b", "a", "x", "d", "y", "z"], torch.tensor([0, 0, 0, 0, 1, 1, 2]), PLAIN)
    lessons, notes = leaving_a_test(words, test)
    assert lessons.samples == ["a", "b", "d", "e"]
    assert notes == ("1 of 5 samples not learned from: they are what is left to test on",)
    left = unseen(test, lessons, torch.tensor([0, 1]))
    assert left.samples == ["c", "x", "y"], "and none of a class that was not attacked"
    assert left.labels.tolist() == [0, 0, 1]
    assert leaving_a_test(left, words.only(words.labels == 1))[1] == ()


def test_tests_are_bounded(digits):
    found = measure(digits, subject(*some(digits.split("private"), 5)), per_class=7)
    assert "tested on 35 samples" in found["attack", "knowledge"].notes[-1]


# nothing to say -------------------------------------------------------------------------------------------


def nothing(item, reason):
    assert math.isnan(item.value)
    assert item.interval is None
    assert (item.n, item.clusters, dict(item.per_case)) == (0, 0, {})
    assert reason in item.notes[0]


def test_one_class_gives_no_number_and_a_reason(digits):
    found = measure(digits, subject(*some(digits.split("private"), 1)), subject(*noise(5, 1, 1), name="one"))
    for name in ("knowledge", "knowledge-private"):
        nothing(found["one", name], "a student of one class")
        assert math.isfinite(found["attack", name].value), "the others are judged"


def test_samples_that_are_not_finite_are_left_out(digits):
    samples, labels = some(digits.split("private"), 6)
    samples = samples.clone()
    samples[::3] = torch.nan
    found = measure(digits, subject(samples, labels))["attack", "knowledge"]
    assert found.n == 20
    assert found.value > 0.7
    assert "10 samples that are not finite left out" in found.notes
    samples[labels == 3] = torch.nan
    missing = measure(digits, subject(samples, labels))["attack", "knowledge"]
    assert missing.per_case["class-3"] == 0, "a class that nobody learned counts"
    nothing(measure(digits, subject(samples * torch.nan, labels))["attack", "knowledge"], "fewer than two samples")


def test_without_held_out_data_only_private_data_test(digits):
    alone = Data(private=digits.split("private"))
    found = measure(alone, subject(*noise(4, 1)))
    nothing(found["attack", "knowledge"], "no labelled holdout samples")
    assert math.isfinite(found["attack", "knowledge-private"].value)
    bare = Data(private=digits.split("private"), holdout=Split(digits.split("holdout").samples, None))
    nothing(measure(bare, subject(*noise(4, 1)))["attack", "knowledge"], "no labelled holdout samples")


# students -------------------------------------------------------------------------------------------------


def test_students_differ_in_their_seed_and_are_the_same_again(digits):
    samples, labels = some(digits.split("private"), 4)
    lessons, plan = (
        Lessons(samples, labels, PLAIN),
        plan_of(20, steps=5, batch_size=8, learning_rate=1e-3, augment="none"),
    )
    one, two, again = (taught(judge(), lessons, torch.arange(5), plan, seed, CPU).module for seed in (0, 1, 0))
    assert torch.equal(one[1].weight, again[1].weight)
    assert not torch.equal(one[1].weight, two[1].weight)


def test_the_order_of_cases_and_the_name_do_not_matter(digits):
    first = subject(*some(digits.split("private"), 4))
    turned = replace(first, name="turned", reconstructions=first.reconstructions[::-1])
    found = measure(digits, first, turned)
    assert found["attack", "knowledge"].value == found["turned", "knowledge"].value


@pytest.mark.parametrize(("n", "steps", "expected"), [(50, 200, 100), (32, 200, 200), (6400, 200, 1), (1, 7, 7)])
def test_all_students_make_about_as_many_steps(n, steps, expected):
    plan = plan_of(n, steps=steps, batch_size=32, learning_rate=1e-3, augment="none")
    assert plan.epochs == expected
    assert plan.validation == 0, "the last epoch is kept"


class ComesTrained(nn.Linear):
    comes_trained = True


@pytest.mark.parametrize(
    ("fresh", "message"), [(lambda n: ComesTrained(64, n), "comes with its weights"), (None, "no untrained network")]
)
def test_a_student_that_knows_something_before_is_refused(digits, fresh, message):
    with pytest.raises(ModelError, match=message):
        measure(digits, subject(*noise(4, 1)), model=judge(fresh))


def test_without_a_judge_it_says_so(digits):
    reference = Reference(modality=PLAIN, dataset=digits, target=None)
    with pytest.raises(ModelError, match="needs an evaluator model"):
        KnowledgeEvaluator(KnowledgeConfig()).evaluate([subject(*noise(4, 1))], reference, CPU)
