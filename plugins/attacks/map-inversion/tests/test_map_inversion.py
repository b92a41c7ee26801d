"""MAP inversion: its rules by hand, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from mi_attack_map_inversion.attack import MapInversion, MapInversionConfig, assumed, counted
from mi_attack_map_inversion.white_box import CountInversion
from mi_tabular.evidence import KnownRow
from mi_tabular.schema import Column, Schema
from micore.contracts import NoConfig, Prepared
from micore.testing import Trial

SCHEMA = Schema((Column("size", low=0, high=1), Column("secret", ("a", "b", "c"))), "secret")
KNOWN = KnownRow(row=torch.zeros(4), schema=SCHEMA, frequencies=torch.tensor([0.5, 0.3, 0.2]), label=1)


def test_frequency_times_confusion_decides() -> None:
    confusion = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    scores = MapInversion(MapInversionConfig()).ranking(
        KNOWN, torch.tensor([0, 1, 1]), Prepared(state={"confusion": confusion})
    )
    torch.testing.assert_close(scores.exp(), torch.tensor([0.5 * 0.4, 0.3 * 0.6, 0.2 * 0.6]).double())


def test_confusion_is_counted_by_the_true_class() -> None:
    found = counted(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([[3 / 5, 2 / 5], [1 / 3, 2 / 3]]))
    torch.testing.assert_close(assumed(3, 0.2).sum(dim=1), torch.ones(3))


def test_counts_of_leaves_decide_in_the_white_box() -> None:
    shares = torch.tensor([[0.3, 0.0], [0.1, 0.2], [0.1, 0.4]])  # of all training rows, by value and class
    scores = CountInversion(NoConfig()).ranking(KNOWN, shares, None)
    torch.testing.assert_close(scores[1:].exp(), torch.tensor([0.3 * 0.2, 0.2 * 0.4]).double())
    assert int(scores.argmax()) == 2
    assert int(scores.argmin()) == 0


@pytest.mark.parametrize("name", ["map-inversion", "map-inversion-wb"])
def test_it_passes_the_checks(name: str) -> None:
    from micore.testing.check import check_plugin

    report = check_plugin("attack", name)
    assert not report.failed, report.failed
    assert Trial(name) is not None
