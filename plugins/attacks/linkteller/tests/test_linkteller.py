"""LinkTeller on the planted graph: what it recovers, spends and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mi_graph.cases import known_of, marked
from mi_graph.datasets.dataset import NodeDataset
from micore.contracts import Case
from micore.errors import AccessDenied
from micore.testing import Trial
from micore.threat import Access, Spending

N = 60


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("linkteller")


def distances(data: NodeDataset) -> torch.Tensor:
    """How many steps two nodes are apart, up to three."""
    edges = data.graph.edges
    joined = torch.zeros(N, N)
    joined[edges[0], edges[1]] = joined[edges[1], edges[0]] = 1
    two = (joined @ joined > 0).float()
    return torch.where(joined > 0, 1, torch.where(two > 0, 2, 3))


@pytest.mark.parametrize("directions", ["sum", "max"])
def test_influence_tells_nearly_all_edges(toy: Trial, directions: str) -> None:
    _, found = toy.run(toy.attack(directions=directions))
    assert toy.recovered(found) > 0.8  # neighbours of neighbours move, too


def test_adding_features_reaches_nodes_without_any(toy: Trial) -> None:
    known = known_of(toy.cases[0])
    blank = replace(known, features=known.features * (torch.arange(N) % 3 == 0)[:, None])
    case = Case(id="graph-0", goal="structure", evidence=blank)
    scale, add = (
        list(toy.attack(change=change).run(toy.target(), [case], None, toy.runtime)) for change in ("scale", "add")
    )
    assert toy.recovered(add) > toy.recovered(scale) + 0.2


def test_beyond_two_layers_there_is_none_at_any_size(toy: Trial) -> None:
    assert isinstance(toy.dataset, NodeDataset)
    apart = distances(toy.dataset)[tuple(known_of(toy.cases[0]).asked())]
    for delta in (0.01, 0.5, 2.0):
        scores = toy.run(toy.attack(delta=delta))[1][0].samples.graphs[0].scores
        assert scores is not None
        assert scores[apart == 3].max() == 0
        assert (scores[apart == 1] > 0).float().mean() > 0.9
    truth = marked(toy.dataset, None).scores
    assert truth is not None
    assert ((apart == 1) == (truth == 1)).all()


def test_all_nodes_are_asked_about_for_each(toy: Trial) -> None:
    target, _ = toy.run(toy.attack(copies=7))
    assert target.ledger.total == Spending(queries=N * (N + 1))
    assert target.ledger.used_access == Access.SCORES


def test_copies_at_once_change_nothing(toy: Trial) -> None:
    one, many = (toy.run(toy.attack(copies=copies))[1][0].samples.graphs[0].scores for copies in (1, 16))
    torch.testing.assert_close(one, many, rtol=1e-3, atol=1e-5)


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    target, (item,) = toy.run(budget=N * 31)
    assert target.ledger.total.queries <= N * 31
    assert not item.complete
    assert 0 < toy.recovered([item]) < 0.95


def test_labels_alone_are_refused(toy: Trial) -> None:
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.LABEL), toy.cases, None, toy.runtime))
