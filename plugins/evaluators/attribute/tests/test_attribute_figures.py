"""Figures of confusion matrices against scikit-learn's, and what the evaluator says of private and held-out rows."""

from __future__ import annotations

import numpy
import pytest
import torch
from sklearn import metrics

from mi_evaluator_attribute import figures
from mi_evaluator_attribute.evaluator import AttributeConfig, AttributeEvaluator
from mi_tabular.cases import ranked
from mi_tabular.datasets.made import open_made_people
from mi_tabular.modality import TabularModality
from micore.contracts import Measurement, Reference, Subject
from micore.runtime import Runtime

RNG = numpy.random.default_rng(0)
TRUE, FOUND = RNG.integers(3, size=200), RNG.integers(3, size=200)
FOUND[:80] = TRUE[:80]


@pytest.mark.parametrize(
    ("figure", "oracle"),
    [
        (figures.accuracy, metrics.accuracy_score), (figures.balanced_accuracy, metrics.balanced_accuracy_score),
        (figures.f1, lambda true, found: metrics.f1_score(true, found, average="macro")),
        (figures.mcc, metrics.matthews_corrcoef),
    ],
)  # fmt: skip
def test_figures_equal_those_of_scikit_learn(figure, oracle) -> None:  # type: ignore[no-untyped-def]
    times = numpy.stack([numpy.ones(200, int), RNG.multinomial(200, numpy.full(200, 1 / 200))])
    found = figure(figures.tables(TRUE, FOUND, times, 3))
    rows = numpy.repeat(numpy.arange(200), times[1])
    assert found == pytest.approx([oracle(TRUE, FOUND), oracle(TRUE[rows], FOUND[rows])])


def measured(share_private: float, share_holdout: float) -> dict[tuple[str, str], Measurement]:
    """Judge an attack that is right so often, beside a floor that always names the most frequent value."""
    data, modality = open_made_people(None, private=100, holdout=100, public=40), TabularModality()
    cases = modality.cases("attribute", data, data.classes, None)
    truth = modality.truths(cases, data)
    attack, floor = [], []
    for row, case in enumerate(cases):
        value = int(truth[case.id].sample.values())
        share = share_private if case.id.startswith("private") else share_holdout
        named = value if row % 100 < 100 * share else (value + 1) % 3
        attack.append(ranked(case, torch.nn.functional.one_hot(torch.tensor(named), 3)))
        floor.append(ranked(case, data.frequencies))
    subjects = [Subject(name="attack", reconstructions=attack), Subject(name="most-frequent", reconstructions=floor)]
    reference = Reference(modality=modality, dataset=data, target=None, truth=truth)
    found = AttributeEvaluator(AttributeConfig()).evaluate(subjects, reference, Runtime(device=torch.device("cpu")))
    return {(item.subject, item.name): item for item in found}


def test_gain_is_over_the_floor_and_disparity_over_held_out_rows() -> None:
    found = measured(0.9, 0.7)
    values = {key: item.value for key, item in found.items()}
    assert values["attack", "accuracy"] == pytest.approx(0.9)
    assert values["attack", "disparity"] == pytest.approx(0.2)
    assert values["attack", "gain"] == pytest.approx(0.9 - values["most-frequent", "accuracy"])
    assert values["attack", "holdout-gain"] == pytest.approx(0.7 - values["most-frequent", "holdout-accuracy"])
    assert values["most-frequent", "gain"] == pytest.approx(0)
    assert values["most-frequent", "balanced-accuracy"] == pytest.approx(1 / 3)
    interval = found["attack", "disparity"].interval
    assert interval is not None
    assert 0 < interval.low < 0.2 < interval.high
