"""What evaluators judge: the attack, and beside it the floor and the ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from micore.contracts import (
    Attack,
    Case,
    Dataset,
    HasBaselines,
    HasClassControls,
    HasControl,
    HasFloors,
    HasPrior,
    HasTruth,
    Modality,
    Prepared,
    Prior,
    Reconstruction,
    Samples,
    Subject,
    Truth,
)
from micore.errors import DataError
from micore.records import true_label
from micore.runtime import Runtime

ATTACK = "attack"
PRIOR_SAMPLES = "prior-samples"
NO_TARGET = "no-target"
EVIDENCE = "evidence"
WRONG_LABEL = "wrong-label"
HOLDOUT = "holdout"
FLOORS = (PRIOR_SAMPLES, WRONG_LABEL)
CEILING = HOLDOUT

SNAPSHOT = "snapshot-"
"""Begins the names of the attack's earlier stands: ``snapshot-0`` is the first."""

CLASS = "class"

Controls = dict[str, list[Reconstruction]]


# controls that a run makes and keeps -----------------------------------------------------------------


def attack_controls(
    attack: Attack | None, prepared: Prepared | None, reconstructions: Sequence[Reconstruction], runtime: Runtime
) -> Controls:
    """Return what the attack's own means give without the target, for the attacked cases."""
    found: Controls = {}
    if isinstance(attack, HasPrior) and prepared is not None:
        found[PRIOR_SAMPLES] = sample_prior(attack.prior(prepared, runtime), reconstructions, runtime)
    if isinstance(attack, HasControl):
        found[NO_TARGET] = list(attack.control([item.case for item in reconstructions], prepared, runtime))
    if isinstance(attack, HasBaselines):
        given = attack.baselines([item.case for item in reconstructions], prepared, runtime)
        found |= {name: list(items) for name, items in given.items()}
    return found


def modality_floors(modality: Modality, cases: Sequence[Case], dataset: Dataset) -> Controls:
    """Return what the adversary has without any attack on other goals than classes, where the modality knows that."""
    instances = [case for case in cases if case.goal != CLASS]
    if not instances or not isinstance(modality, HasFloors):
        return {}
    return {name: list(items) for name, items in modality.floors(instances, dataset).items()}


def class_controls(modality: Modality, reconstructions: Sequence[Reconstruction], dataset: Dataset) -> Controls:
    """Return what judges of classes may accept without an inversion, where the modality knows that."""
    classes = [item for item in reconstructions if item.case.goal == CLASS]
    if not classes or not isinstance(modality, HasClassControls):
        return {}
    return {name: list(items) for name, items in modality.class_controls(classes, dataset).items()}


def sample_prior(prior: Prior, reconstructions: Sequence[Reconstruction], runtime: Runtime) -> list[Reconstruction]:
    """Draw as many samples of the prior for each case as the attack gave: the negative control."""
    return [draw_case(prior, item.case, len(item.scores), runtime) for item in reconstructions]


def draw_case(prior: Prior, case: Case, n: int, runtime: Runtime) -> Reconstruction:
    """Draw n samples of the prior for one case, without looking at the target."""
    samples = prior.sample(n, runtime.rng(PRIOR_SAMPLES, case.id))
    return Reconstruction(case=case, samples=samples, scores=torch.zeros(n))


def beside_evidence(
    reconstructions: Sequence[Reconstruction], controls: Controls, modality: Modality
) -> dict[str, Samples]:
    """Return what previews show of each case: its evidence, where it is a sample, then what was recovered."""
    evidence = {item.case.id: [item.samples] for item in controls.get(EVIDENCE, ())}
    return {
        item.case.id: modality.join([*evidence[item.case.id], item.samples]) if evidence else item.samples
        for item in reconstructions
    }


# subjects of the evaluators --------------------------------------------------------------------------


def with_cases(reconstructions: Sequence[Reconstruction], cases: Sequence[Case]) -> list[Reconstruction]:
    """Give stored reconstructions their whole cases again: a run keeps no evidence."""
    whole = {case.id: case for case in cases}
    return [replace(item, case=whole.get(item.case.id, item.case)) for item in reconstructions]


def truths(cases: Sequence[Case], dataset: Dataset, modality: Modality) -> dict[str, Truth]:
    """Return the samples behind cases of other goals than classes, by case id; none where nobody knows them."""
    instances = [case for case in cases if case.goal != CLASS]
    return dict(modality.truths(instances, dataset)) if instances and isinstance(modality, HasTruth) else {}


def snapshots(reconstructions: Sequence[Reconstruction]) -> list[Subject]:
    """Return the attack's earlier stands as subjects; where a case has fewer than others, its last one stays."""
    longest = max((len(item.snapshots) for item in reconstructions), default=0)
    return [
        Subject(name=f"{SNAPSHOT}{index}", reconstructions=[_stand(item, index) for item in reconstructions])
        for index in range(longest)
    ]


def _stand(item: Reconstruction, index: int) -> Reconstruction:
    if index >= len(item.snapshots):
        return item
    samples = item.snapshots[index].samples
    return Reconstruction(case=item.case, samples=samples, scores=torch.zeros(len(samples)))


def wrong_label(reconstructions: Sequence[Reconstruction], n_classes: int) -> list[Reconstruction]:
    """Claim each reconstruction for the next class: what a judge accepts of a wrong person."""
    return [
        replace(item, case=replace(item.case, label=(item.case.label + 1) % n_classes))
        for item in reconstructions
        if item.case.label is not None
    ]


def holdout(
    reconstructions: Sequence[Reconstruction],
    dataset: Dataset,
    runtime: Runtime,
    truth: Mapping[str, Truth] | None = None,
) -> list[Reconstruction]:
    """Take held-out private samples of each attacked class: what a perfect recovery of it would score."""
    split = dataset.split("holdout")
    if split.labels is None:
        raise DataError("the held-out split has no labels")
    found = []
    for item in reconstructions:
        label = true_label(item.case, truth or {})
        members = split.labels.eq(-1 if label is None else label).nonzero().flatten()
        order = runtime.rng(HOLDOUT, item.case.id).permutation(len(members))
        chosen = members[order[: len(item.scores)]]
        if len(chosen):
            samples = split.take(chosen)
            found.append(Reconstruction(case=item.case, samples=samples, scores=torch.zeros(len(chosen))))
    return found


def subjects(
    reconstructions: Sequence[Reconstruction],
    controls: Mapping[str, list[Reconstruction]],
    dataset: Dataset,
    truth: Mapping[str, Truth],
    runtime: Runtime,
) -> list[Subject]:
    """Return everything that a run's evaluators judge; the controls that make sense for its goal."""
    found = [Subject(name=ATTACK, reconstructions=reconstructions)]
    found += [Subject(name=name, reconstructions=items) for name, items in controls.items()]
    found += snapshots(reconstructions)
    if all(item.case.goal == CLASS for item in reconstructions):
        found.append(Subject(name=WRONG_LABEL, reconstructions=wrong_label(reconstructions, len(dataset.classes))))
    elif not truth:
        return found
    with suppress(DataError):  # a data set without held-out data has no ceiling; the report says so
        if real := holdout(reconstructions, dataset, runtime, truth):
            found.append(Subject(name=HOLDOUT, reconstructions=real))
    return found
