"""CSMIA and LOMIA: the cases of the paper by hand."""

from __future__ import annotations

import pytest
import torch

from mi_attack_confidence_inversion.attack import surest
from mi_attack_confidence_inversion.label_only import LabelOnly, LabelOnlyConfig
from mi_tabular.evidence import KnownRow
from mi_tabular.schema import Column, Schema

FREQUENCIES = torch.tensor([0.2, 0.5, 0.3])


@pytest.mark.parametrize(
    ("first", "best"),
    [
        ([0.4, 0.1, 0.9], 2),  # right with the last value alone
        ([0.6, 0.1, 0.9], 2),  # right with two: the surer one
        ([0.9, 0.1, 0.6], 0),
        ([0.1, 0.4, 0.3], 1),  # right with none: the least sure one
        ([0.8, 0.8, 0.1], 1),  # equally sure: the more frequent one
    ],
)
def test_confidence_decides_as_in_the_paper(first: list[float], best: int) -> None:
    right = torch.tensor(first)
    scores = torch.stack([right, 1 - right], dim=1)
    assert int(surest(scores, 0, FREQUENCIES).argmax()) == best


def known(label: int) -> KnownRow:
    schema = Schema((Column("size", low=0, high=1), Column("secret", ("a", "b", "c"))), "secret")
    return KnownRow(row=torch.zeros(4), schema=schema, frequencies=FREQUENCIES, label=label)


@pytest.mark.parametrize(
    ("answers", "own", "best"),
    [([1, 0, 0], True, 0), ([1, 0, 0], False, 1), ([1, 1, 0], True, 1), ([0, 0, 0], True, 1)],
)
def test_without_a_forest_the_only_right_value_or_the_most_frequent(answers: list[int], own: bool, best: int) -> None:
    scores = LabelOnly(LabelOnlyConfig(own=own)).ranking(known(1), torch.tensor(answers), None)
    assert int(scores.argmax()) == best


@pytest.mark.parametrize("name", ["csmia", "lomia"])
def test_it_passes_the_checks(name: str) -> None:
    from micore.testing.check import check_plugin

    report = check_plugin("attack", name)
    assert not report.failed, report.failed
