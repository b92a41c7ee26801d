"""Whole graphs from embeddings on the planted problem: what is recovered, from what, spent and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mi_attack_embedding_to_graph import whole_graphs
from mi_attack_embedding_to_graph.ordering import breadth_first, matched, matrix
from mi_graph.batch import Graphs
from mi_graph.datasets.motifs import open_motifs
from mi_graph.evidence import KnownGraph
from mi_graph.graphs import Graph
from micore.errors import BudgetExceeded, DataError, UsageError
from micore.runtime import Random
from micore.testing import Trial
from micore.testing.check import CHECKS, open_bench
from micore.testing.report import CheckReport, run_checks
from micore.threat import Spending

CHECKED = CHECKS["attack"][1]


class WholeTrial(Trial):
    """The attack on the planted problem of many graphs."""

    def __init__(self, **options: Any) -> None:
        super().__init__("embedding-to-graph", **options)
        self.setting = self.lab.settings("graph")[1]
        self.dataset = self.setting.dataset

    def floor(self) -> float:
        floors = self.modality.floors(self.cases, self.dataset)  # type: ignore[attr-defined]
        return max(self.recovered(list(items)) for items in floors.values())


@pytest.fixture(scope="module")
def toy() -> WholeTrial:
    return WholeTrial()


def test_it_keeps_the_contract_on_whole_graphs_too(toy: WholeTrial) -> None:
    bench = open_bench(toy.entry, toy.registry, toy.lab)
    bench.__dict__["setting"] = toy.setting
    report = CheckReport(kind="attack", name="whole graphs", rows=run_checks(CHECKED, bench))
    assert report.passed, report.text()


@pytest.mark.parametrize("method", ["likeliest-public", "nearest-public", "decoded"])
def test_degrees_are_recovered_better_than_from_public_graphs(toy: WholeTrial, method: str) -> None:
    found = toy.run(toy.attack(method=method))[1]
    assert toy.recovered(found) > toy.floor() + 0.3


def test_they_come_from_the_embedding_of_the_very_graph(toy: WholeTrial) -> None:
    """Embeddings of other private graphs of the size recover no more than public graphs do."""
    private = toy.dataset.split("private").graphs  # type: ignore[attr-defined]
    partner = {}
    for row, graph in enumerate(private):
        others = [other for other, item in enumerate(private) if item.n_nodes == graph.n_nodes and other != row]
        if others:
            partner[row] = others[-1]
    cases = [toy.cases[row] for row in partner]
    swapped = [
        replace(case, evidence=KnownGraph(number=partner[case.evidence.number], n_nodes=case.evidence.n_nodes))
        for case in cases
    ]
    attack = toy.attack()
    own, other = (
        [replace(item, case=case) for item, case in zip(
            attack.run(toy.target(), items, toy.prepared, toy.runtime), cases, strict=True
        )]
        for items in (cases, swapped)
    )  # fmt: skip
    assert len(cases) > 15
    assert toy.recovered(own) > toy.recovered(other) + 0.3


@pytest.mark.parametrize("method", ["likeliest-public", "decoded"])
def test_without_the_embedding_less_is_recovered(toy: WholeTrial, method: str) -> None:
    """A typical graph of the size is more alike to a private one than any, and yet far less than what is read."""
    attack: Any = toy.attack(method=method)
    (name, items), *others = attack.baselines(toy.cases, toy.prepared, toy.runtime).items()
    assert (name, others, [item.case.id for item in items]) == ("mean-embedding", [], [case.id for case in toy.cases])
    assert toy.recovered(list(items)) < toy.recovered(toy.run(attack)[1]) - 0.15
    assert attack.baselines(toy.cases, None, toy.runtime) == {}


def test_public_graphs_are_sent_once_and_private_ones_named_once(toy: WholeTrial) -> None:
    prepared_on, _ = toy.preparation
    target, found = toy.run()
    assert prepared_on.ledger.total == Spending(queries=len(toy.dataset.split("public")))
    assert target.ledger.total == Spending(queries=len(found)) == Spending(queries=len(toy.cases))


def test_decoded_graphs_have_the_known_size_and_public_ones_are_public(toy: WholeTrial) -> None:
    sizes = [case.evidence.n_nodes for case in toy.cases]
    decoded = [item.samples.graphs[0] for item in toy.run(toy.attack(method="decoded"))[1]]
    assert [graph.n_nodes for graph in decoded] == sizes
    looks = {_look(graph) for graph in toy.dataset.split("public").graphs}  # type: ignore[attr-defined]
    for method in ("likeliest-public", "nearest-public"):
        assert all(_look(item.samples.graphs[0]) in looks for item in toy.run(toy.attack(method=method))[1])


def _look(graph: Graph) -> tuple[int, tuple[int, ...]]:
    return graph.n_nodes, tuple(graph.degrees().sort().values.tolist())


def test_larger_graphs_than_public_ones_are_recovered_in_part(toy: WholeTrial) -> None:
    assert toy.prepared is not None
    public, decoder = whole_graphs._restored(toy.prepared.state[whole_graphs.KEY], toy.runtime)
    known = KnownGraph(number=0, n_nodes=public.n + 5)
    sizes = {}
    for method in ("likeliest-public", "nearest-public", "decoded"):
        sizes[method] = whole_graphs._read(method, public, decoder, public.embeddings[:1], known).n_nodes
    assert sizes == {"likeliest-public": public.n, "nearest-public": public.n, "decoded": public.n + 5}


def test_matching_is_done_anew_in_training(toy: WholeTrial) -> None:
    attack = toy.attack(method="decoded", matchings=2, graph_steps=30)
    prepared = toy.prepare(attack, toy.target())
    plain = toy.prepare(toy.attack(method="decoded", graph_steps=30), toy.target())
    assert prepared is not None
    assert plain is not None
    ours, theirs = (item.state["whole"]["edges"] for item in (prepared, plain))
    assert not torch.equal(ours, theirs)
    assert torch.equal(ours.sum(dim=1), theirs.sum(dim=1))


def test_a_budget_that_does_not_last_is_said(toy: WholeTrial) -> None:
    _, found = toy.run(budget=3)
    assert [item.complete for item in found] == [True, True, True, False]
    with pytest.raises(BudgetExceeded):
        toy.prepare(toy.attack(), toy.target(budget=10))


def test_what_does_not_fit_is_said(toy: WholeTrial) -> None:
    lonely = Graphs.whole([Graph(torch.ones(3, 4), torch.empty(2, 0, dtype=torch.int64))])
    with pytest.raises(DataError, match="learns from public graphs of 2 to 256 nodes with edges"):
        toy.attack().prepare(toy.target(), _Split(lonely), toy.runtime)
    with pytest.raises(UsageError, match="not the 'labels' are known"):
        toy.modality.cases("structure", toy.dataset, (), None, "labels")


class _Split:
    """Samples as a split."""

    labels = None

    def __init__(self, samples: Graphs) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Any) -> Graphs:
        return self.samples


# orders -----------------------------------------------------------------------------------------------------------


def star_with_tail() -> Graph:
    """0 - 1 - 2, and 2 joined to 3, 4, 5; 6 alone."""
    return Graph(torch.empty(7, 0), torch.tensor([[0, 1, 2, 2, 2], [1, 2, 3, 4, 5]]))


def test_breadth_first_begins_with_the_most_edges() -> None:
    graph = star_with_tail()
    assert breadth_first(graph) == [2, 1, 3, 4, 5, 0, 6]
    found = matrix(graph, breadth_first(graph), 8)
    assert torch.equal(found, found.T)
    assert found[0].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
    assert found[1].nonzero().flatten().tolist() == [0, 5]
    assert not found[6:].any()


def test_matching_finds_an_order_again() -> None:
    """Max-pooling is no exact method: nearly all edges of mixed graphs come back to where the decoded ones are."""
    graphs = open_motifs(None, graphs=40).graphs
    decoded = torch.stack([matrix(graph, list(range(graph.n_nodes)), 16) for graph in graphs])
    mixed = torch.stack([matrix(graph, Random(9).permutation(graph.n_nodes).tolist(), 16) for graph in graphs])
    sizes = torch.tensor([graph.n_nodes for graph in graphs])
    found = matched(mixed, decoded, sizes)
    before, after = (((part * decoded).sum() / decoded.sum()).item() for part in (mixed, found))
    assert before < 0.35
    assert after > 0.9
    assert torch.equal(found.sum(dim=1).sort(dim=1).values, mixed.sum(dim=1).sort(dim=1).values)
    assert torch.equal(found, found.transpose(1, 2))
    assert not any(graph[size:].any() for graph, size in zip(found, sizes.tolist(), strict=True))
