"""The floor and the ceiling beside the attack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from micore.contracts import Case, Prepared, Reconstruction, Truth
from micore.errors import DataError
from micore.records import true_label
from micore.runs.subjects import (
    attack_controls,
    beside_evidence,
    class_controls,
    draw_case,
    holdout,
    modality_floors,
    sample_prior,
    subjects,
    truths,
    with_cases,
    wrong_label,
)
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
    return [subject.name for subject in subjects(*arguments, {}, RUNTIME)]


def test_every_run_has_the_subjects_that_make_sense(dataset):
    controls = {"prior-samples": [item(0)]}
    assert names([item(0)], controls, dataset) == ["attack", "prior-samples", "wrong-label", "holdout"]
    assert names([item(None, goal="prompt")], controls, dataset) == ["attack", "prior-samples"]
    assert names([item(0)], {}, toys.open_bare("holdout", **toys.SMALL)) == ["attack", "wrong-label"]


# goal instance ------------------------------------------------------------------------------------------


def instance(row: int, n: int = 2, evidence: object = None) -> Reconstruction:
    case = Case(id=f"image-{row}", goal="instance", evidence=evidence)
    return Reconstruction(case=case, samples=torch.full((n, 1, 4, 4), float(row)), scores=torch.zeros(n))


class Paired(ToyModality):
    """Knows that the sample behind ``image-N`` is the N-th private one."""

    def truths(self, cases, dataset):
        private = dataset.split("private")
        rows = {case.id: int(case.id.removeprefix("image-")) for case in cases}
        return {name: Truth(sample=private.take([row]), label=int(private.labels[row])) for name, row in rows.items()}

    def floors(self, cases, dataset):
        return {"evidence": [Reconstruction(case=case, samples=case.evidence, scores=torch.zeros(1)) for case in cases]}


class Unguided:
    def control(self, cases, prepared, runtime):
        for case in cases:
            samples = prepared.state["mean"] + runtime.rng("no-target", case.id).normal((2, 1, 4, 4))
            yield Reconstruction(case=case, samples=samples, scores=torch.zeros(2))


class UnguidedWithPrior(Unguided):
    def prior(self, prepared, runtime):
        return toys.NoisePrior(4)


PREPARED = Prepared(state={"mean": torch.zeros(1, 4, 4)})


def test_an_attack_is_controlled_by_what_it_offers():
    items = [instance(0), instance(1)]
    assert attack_controls(None, PREPARED, items, RUNTIME) == {}
    assert attack_controls(toys.ScriptedAttack(None), None, items, RUNTIME) == {}
    (name,) = found = attack_controls(Unguided(), PREPARED, items, RUNTIME)
    assert name == "no-target"
    assert [item.case.id for item in found[name]] == ["image-0", "image-1"]
    assert list(attack_controls(UnguidedWithPrior(), PREPARED, items, RUNTIME)) == ["prior-samples", "no-target"]


def test_floors_and_truth_are_asked_for_instances_only(dataset):
    cases = [instance(3, evidence=torch.ones(1, 1, 4, 4)).case]
    assert [item.case for item in modality_floors(Paired(), cases, dataset)["evidence"]] == cases
    assert truths(cases, dataset, Paired())["image-3"].label == int(dataset.split("private").labels[3])
    for modality, some in ((ToyModality(), cases), (Paired(), [item(0).case]), (Paired(), [])):
        assert modality_floors(modality, some, dataset) == {}
        assert truths(some, dataset, modality) == {}


def test_judges_know_the_class_that_adversaries_do_not():
    truth = {"image-1": Truth(sample=None, label=3)}
    assert [true_label(one.case, truth) for one in (instance(1), instance(2), item(0))] == [3, None, 0]


def test_instances_have_a_ceiling_where_their_class_is_known(dataset):
    items, controls = [instance(0, 3)], {"no-target": [instance(0)]}
    assert names(items, controls, dataset) == ["attack", "no-target"]
    truth = truths([items[0].case], dataset, Paired())
    *_, ceiling = subjects(items, controls, dataset, truth, RUNTIME)
    assert ceiling.name == "holdout"
    split = dataset.split("holdout")
    members = split.samples[split.labels == truth["image-0"].label]
    (real,) = ceiling.reconstructions
    assert len(real.samples) == 3
    assert all((members == sample).flatten(1).all(dim=1).any() for sample in real.samples)
    unlabelled = {"image-0": Truth(sample=None)}
    assert [subject.name for subject in subjects(items, controls, dataset, unlabelled, RUNTIME)] == [
        "attack",
        "no-target",
    ]


def test_stored_reconstructions_get_their_evidence_again():
    whole = instance(1, evidence="seen").case
    first, second = with_cases([instance(1), instance(2)], [whole])
    assert first.case is whole
    assert second.case.evidence is None
    assert torch.equal(first.samples, instance(1).samples)


def test_previews_begin_with_the_evidence():
    plain = beside_evidence([instance(1)], {"no-target": [instance(1)]}, ToyModality())
    assert torch.equal(plain["image-1"], instance(1).samples)
    both = beside_evidence(
        [instance(1)], {"evidence": [replace(instance(1, 1), samples=torch.zeros(1, 1, 4, 4))]}, ToyModality()
    )
    assert both["image-1"].flatten(1).mean(dim=1).tolist() == [0.0, 1.0, 1.0]


class ControllingModality(ToyModality):
    """A modality that knows one control of goal ``class``."""

    def class_controls(self, reconstructions, dataset):
        return {"noise": (replace(part, samples=torch.ones_like(part.samples)) for part in reconstructions)}


def test_a_modality_may_know_what_judges_of_classes_accept(dataset):
    found = class_controls(ControllingModality(), [item(0), item(None, goal="instance")], dataset)
    assert [part.case.label for part in found["noise"]] == [0]
    assert class_controls(ToyModality(), [item(0)], dataset) == {}
    assert class_controls(ControllingModality(), [item(None, goal="instance")], dataset) == {}
