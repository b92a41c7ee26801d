"""Figures of whole graphs against networkx and hand-made examples, and the evaluator as the core calls it."""

from __future__ import annotations

from types import SimpleNamespace

import networkx
import numpy
import pytest
import torch

from mi_evaluator_edges.clustering import clustering
from mi_evaluator_edges.evaluator import EdgesConfig, EdgesEvaluator
from mi_evaluator_edges.whole import figures
from mi_graph.baselines import floors
from mi_graph.cases import structure_cases, truths
from mi_graph.datasets.motifs import open_motifs
from mi_graph.graphs import Graph, ordered
from mi_graph.whole_cases import recovered
from micore.contracts import Measurement, Reference, Subject
from micore.errors import DataError
from micore.runtime import Random, Runtime

DATA = open_motifs(None, graphs=60)
CASES = structure_cases(DATA, None, None)
TRUTHS = truths(CASES, DATA)
PRIVATE = DATA.split("private").graphs
REFERENCE = Reference(modality=SimpleNamespace(), dataset=DATA, target=None, truth=TRUTHS)
FIGURES = {"wl-kernel", "degree-cosine", "clustering-cosine", "edge-count-error", "indistinguishable", "gain"}


def of(graph: networkx.Graph) -> Graph:
    edges = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    return Graph(torch.empty(len(graph), 0), ordered(edges))


def turned(graph: Graph) -> Graph:
    order = Random(0).permutation(graph.n_nodes)
    return Graph(graph.features[:, :0], ordered(order[graph.edges]))


def subject(graphs: list[Graph], name: str = "attack") -> Subject:
    items = [recovered(case, graph) for case, graph in zip(CASES, graphs, strict=True)]
    return Subject(name=name, reconstructions=items)


def measure(*subjects: Subject) -> dict[tuple[str, str], Measurement]:
    found = EdgesEvaluator(EdgesConfig()).evaluate(subjects, REFERENCE, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


def all_floors() -> list[Subject]:
    return [Subject(name=name, reconstructions=items) for name, items in floors(CASES, DATA).items()]


def exact_bins(graph: networkx.Graph) -> list[int]:
    """Return the tenth that each node's clustering coefficient is in, by whole numbers alone."""
    pairs = {node: max(1, degree * (degree - 1)) for node, degree in graph.degree}
    return [min(9, 20 * triangles // pairs[node]) for node, triangles in networkx.triangles(graph).items()]


@pytest.mark.parametrize("seed", range(5))
def test_clustering_and_histograms_are_those_of_networkx(seed: int) -> None:
    one, two = (networkx.gnp_random_graph(n, 0.4, seed=seed) for n in (9, 12))
    expected = torch.tensor(list(networkx.clustering(one).values()), dtype=torch.float64)
    torch.testing.assert_close(clustering(of(one)), expected)
    found = figures(of(one), of(two))
    histograms = [numpy.array(networkx.degree_histogram(graph)) for graph in (one, two)]
    length = max(map(len, histograms))
    first, second = (numpy.pad(part, (0, length - len(part))) for part in histograms)
    cosine = first @ second / numpy.linalg.norm(first) / numpy.linalg.norm(second)
    assert found["degree-cosine"] == pytest.approx(cosine)
    bins = [numpy.bincount(exact_bins(graph), minlength=10) for graph in (one, two)]
    cosine = bins[0] @ bins[1] / numpy.linalg.norm(bins[0]) / numpy.linalg.norm(bins[1])
    assert found["clustering-cosine"] == pytest.approx(cosine)
    edges = [graph.number_of_edges() for graph in (one, two)]
    assert found["edge-count-error"] == pytest.approx(abs(edges[0] - edges[1]) / edges[1])


def test_the_true_graphs_in_another_order_have_everything() -> None:
    found = measure(subject([turned(graph) for graph in PRIVATE]), *all_floors())
    assert {name for _, name in found} == FIGURES
    for name in FIGURES - {"gain", "edge-count-error"}:
        assert found["attack", name].value == pytest.approx(1)
    assert found["attack", "edge-count-error"].value == 0
    assert found["attack", "edge-count-error"].direction == "down"
    best = max(found[floor.name, "wl-kernel"].value for floor in all_floors())
    assert found["attack", "gain"].value == pytest.approx(1 - best)
    assert (found["attack", "gain"].n, found["attack", "gain"].clusters) == (24, 24)
    interval = found["attack", "gain"].interval
    assert interval is not None
    assert interval.low > 0.5


def test_graphs_that_look_at_nothing_gain_nothing() -> None:
    blind = [of(networkx.gnp_random_graph(graph.n_nodes, 0.2, seed=row)) for row, graph in enumerate(PRIVATE)]
    found = measure(subject(blind), *all_floors())
    assert found["attack", "gain"].value < 0.02
    assert found["attack", "indistinguishable"].value == 0
    best = next(name for name in ("erdos-renyi", "random-public", "public-of-size") if found[name, "gain"].value == 0)
    assert best in found["attack", "gain"].notes[0]


def test_graphs_of_other_sizes_and_without_edges_are_judged() -> None:
    empty = Graph(torch.empty(3, 0), torch.empty(2, 0, dtype=torch.int64))
    found = measure(subject([empty] * len(CASES)))
    assert found["attack", "edge-count-error"].value == 1
    assert found["attack", "wl-kernel"].value == 0
    assert ("attack", "gain") not in found
    assert figures(empty, empty)["indistinguishable"] == 1


def test_an_unknown_truth_is_said() -> None:
    reference = Reference(
        modality=SimpleNamespace(), dataset=DATA, target=None, truth={"graph-0": TRUTHS["graph-0"]}
    )  # fmt: skip
    with pytest.raises(DataError, match="nobody knows the truth of graph-1"):
        EdgesEvaluator(EdgesConfig()).evaluate([subject(list(PRIVATE))], reference, Runtime.create("cpu"))
