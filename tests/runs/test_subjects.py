"""The floor and the ceiling beside the attack."""

from __future__ import annotations

import pytest
import torch

from micore.contracts import Case, Reconstruction
from micore.errors import DataError
from micore.runs.subjects import draw_case, holdout, sample_prior, subjects, wrong_label
from micore.runtime import Runtime
from micore.testing.toys import ToyModality, ToySplit, open_toy
from tests import toys

RUNTIME = Runtime.create("cpu", seed=3)


@pytest.fixture(scope="module")
def dataset():
    return open_toy(None, **toys.SMALL)


def item(label: int | None, n: int = 2, goal: str = "class") -> Reconstruction:
    case = Case(id=f"case-{label}", goal=goal, label=label)
    return Reconstruction(case=case, samples=torch.zeros(n, 1, 4, 4), scores=torch.zeros(n))


def test_the_prior_gives_as_many_samples_and_does_not_aim():
    prior = toys.NoisePrior(4)
    found = sample_prior(prior, [item(0, 3), item(1, 1)], RUNTIME)
    assert [len(part.samples) for part in found] == [3, 1]
    assert [part.case.label for part in found] == [0, 1]
    alone = draw_case(prior, item(1).case, 1, RUNTIME)
    assert torch.equal(alone.samples, found[1].samples)
    assert not torch.equal(found[0].samples[:1], found[1].samples)


def test_wrong_labels_are_never_right():
    found = wrong_label([item(0), item(3), item(None)], 4)
    assert [part.case.label for part in found] == [1, 0]
    assert [part.case.id for part in found] == ["case-0", "case-3"]


def test_the_holdout_is_of_the_class_and_as_many_as_there_are(dataset):
    split = dataset.split("holdout")
    found = holdout([item(2, 3), item(1, 99), item(77)], dataset, RUNTIME)
    assert [len(part.samples) for part in found] == [3, 8]
    members = split.samples[split.labels == 2]
    for sample in found[0].samples:
        assert (members == sample).flatten(1).all(dim=1).any()
    assert len({tuple(sample.flatten().tolist()) for sample in found[0].samples}) == 3
    again = holdout([item(2, 3)], dataset, RUNTIME)
    assert torch.equal(again[0].samples, found[0].samples)


def test_a_holdout_without_labels_is_none(dataset):
    class Unlabelled:
        def split(self, name):
            return ToySplit(dataset.split(name).samples)

    with pytest.raises(DataError, match="no labels"):
        holdout([item(1)], Unlabelled(), RUNTIME)


def names(*arguments):
    return [subject.name for subject in subjects(*arguments, ToyModality(), RUNTIME)]


def test_every_run_has_the_subjects_that_make_sense(dataset):
    controls = {"prior-samples": [item(0)]}
    assert names([item(0)], controls, dataset) == ["attack", "prior-samples", "wrong-label", "holdout"]
    assert names([item(None, goal="prompt")], controls, dataset) == ["attack", "prior-samples"]
    assert names([item(0)], {}, toys.open_bare("holdout", **toys.SMALL)) == ["attack", "wrong-label"]
