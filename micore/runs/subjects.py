"""What evaluators judge: the attack, and beside it the floor and the ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from micore.contracts import Case, Dataset, Modality, Prior, Reconstruction, Subject
from micore.errors import DataError
from micore.runtime import Runtime

ATTACK = "attack"
PRIOR_SAMPLES = "prior-samples"
WRONG_LABEL = "wrong-label"
HOLDOUT = "holdout"
FLOORS = (PRIOR_SAMPLES, WRONG_LABEL)
CEILING = HOLDOUT


def sample_prior(prior: Prior, reconstructions: Sequence[Reconstruction], runtime: Runtime) -> list[Reconstruction]:
    """Draw as many samples of the prior for each case as the attack gave: the negative control."""
    return [draw_case(prior, item.case, len(item.scores), runtime) for item in reconstructions]


def draw_case(prior: Prior, case: Case, n: int, runtime: Runtime) -> Reconstruction:
    """Draw n samples of the prior for one case, without looking at the target."""
    samples = prior.sample(n, runtime.rng(PRIOR_SAMPLES, case.id))
    return Reconstruction(case=case, samples=samples, scores=torch.zeros(n))


def wrong_label(reconstructions: Sequence[Reconstruction], n_classes: int) -> list[Reconstruction]:
    """Claim each reconstruction for the next class: what a judge accepts of a wrong person."""
    return [
        replace(item, case=replace(item.case, label=(item.case.label + 1) % n_classes))
        for item in reconstructions
        if item.case.label is not None
    ]


def holdout(reconstructions: Sequence[Reconstruction], dataset: Dataset, runtime: Runtime) -> list[Reconstruction]:
    """Take held-out private samples of each attacked class: what a perfect recovery would score."""
    split = dataset.split("holdout")
    if split.labels is None:
        raise DataError("the held-out split has no labels")
    found = []
    for item in reconstructions:
        members = split.labels.eq(-1 if item.case.label is None else item.case.label).nonzero().flatten()
        order = runtime.rng(HOLDOUT, item.case.id).permutation(len(members))
        chosen = members[order[: len(item.scores)]]
        if len(chosen):
            samples = split.take(chosen)
            found.append(Reconstruction(case=item.case, samples=samples, scores=torch.zeros(len(chosen))))
    return found


def subjects(
    reconstructions: Sequence[Reconstruction],
    controls: dict[str, list[Reconstruction]],
    dataset: Dataset,
    modality: Modality,
    runtime: Runtime,
) -> list[Subject]:
    """Return everything that a run's evaluators judge; the controls that make sense for its goal."""
    found = [Subject(name=ATTACK, reconstructions=reconstructions)]
    found += [Subject(name=name, reconstructions=items) for name, items in controls.items()]
    if not all(item.case.goal == "class" for item in reconstructions):
        return found
    found.append(Subject(name=WRONG_LABEL, reconstructions=wrong_label(reconstructions, len(dataset.classes))))
    with suppress(DataError):  # a data set without held-out data has no ceiling; the report says so
        found.append(Subject(name=HOLDOUT, reconstructions=holdout(reconstructions, dataset, runtime)))
    return found
