"""Clustering of recovered edges against networkx, and its figures."""

from __future__ import annotations

import networkx
import pytest
import torch

from mi_evaluator_edges.clustering import clustering, triangles
from mi_evaluator_edges.evaluator import EdgesConfig, EdgesEvaluator
from mi_graph.batch import Graphs
from mi_graph.cases import known_of, marked, structure_cases
from mi_graph.datasets.bundled import open_karate
from mi_graph.graphs import Graph, ordered
from micore.contracts import Reconstruction, Reference, Subject, Truth
from micore.runtime import Runtime

DATA = open_karate(None)


def of(graph: networkx.Graph) -> Graph:
    edges = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    return Graph(torch.empty(len(graph), 0), ordered(edges))


def shape(graph: Graph) -> networkx.Graph:
    found = networkx.empty_graph(graph.n_nodes)
    found.add_edges_from(graph.edges.T.tolist())
    return found


def figures(graph: Graph, evidence: str | None = None) -> dict[str, float]:
    (case,) = structure_cases(DATA, None, evidence)
    truth = {case.id: Truth(sample=Graphs.whole([marked(DATA, None, known_of(case).edges)]))}
    reference = Reference(modality=object(), dataset=DATA, target=None, truth=truth)  # type: ignore[arg-type]
    item = Reconstruction(case=case, samples=Graphs.whole([graph]), scores=torch.zeros(1))
    evaluator = EdgesEvaluator(EdgesConfig(resamples=10))
    found = evaluator.evaluate([Subject(name="attack", reconstructions=[item])], reference, Runtime.create("cpu"))
    assert {part.name: part.direction for part in found}["clustering-error"] == "down"
    return {part.name: part.value for part in found}


@pytest.mark.parametrize(
    "graph",
    [
        *(networkx.gnp_random_graph(30, share, seed=seed) for seed, share in enumerate((0.0, 0.1, 0.3, 1.0))),
        networkx.barabasi_albert_graph(200, 3, seed=0),
        networkx.karate_club_graph(),
        networkx.star_graph(8),
    ],
)
def test_triangles_and_clustering_are_those_of_networkx(graph: networkx.Graph) -> None:
    expected = networkx.clustering(networkx.Graph(graph.edges) if graph.edges else networkx.empty_graph(len(graph)))
    found = clustering(of(graph))
    torch.testing.assert_close(found, torch.tensor([float(expected[node]) for node in range(len(graph))]).double())
    assert triangles(of(graph)).tolist() == [networkx.triangles(graph)[node] for node in range(len(graph))]


def test_nodes_that_are_joined_to_all_others_cost_little() -> None:
    """Two such nodes of 20,000: paths of two edges are 400 million, those that lead to more edges few."""
    n = 20_000
    hubs = torch.stack([torch.arange(2).repeat_interleave(n - 2), torch.arange(2, n).repeat(2)])
    graph = Graph(torch.empty(n, 0), ordered(torch.cat([hubs, torch.tensor([[0], [1]])], dim=1)))
    found = clustering(graph)
    assert found[2:].unique().tolist() == [1.0]
    assert found[:2].tolist() == pytest.approx([2 / (n - 1)] * 2)


def test_the_true_edges_have_their_clustering_and_others_do_not() -> None:
    found = figures(Graph(torch.empty(34, 0), DATA.graph.edges))
    assert found["clustering-correlation"] == pytest.approx(1)
    assert found["clustering-error"] == 0
    tree = networkx.random_labeled_tree(34, seed=0)
    found = figures(of(tree))
    assert found["clustering-correlation"] == 0
    assert found["clustering-error"] == pytest.approx(networkx.average_clustering(shape(DATA.graph)))


def test_edges_that_were_known_are_taken_out_of_both_graphs() -> None:
    held = known_of(structure_cases(DATA, None, "edges")[0]).edges
    assert held is not None
    other = networkx.gnm_random_graph(34, 60, seed=1)
    private = shape(DATA.graph)
    private.remove_edges_from(held.T.tolist())
    without = other.copy()
    without.remove_edges_from(held.T.tolist())
    columns = [[float(value) for value in networkx.clustering(part).values()] for part in (without, private)]
    expected = torch.corrcoef(torch.tensor(columns, dtype=torch.float64))[0, 1]
    other.add_edges_from(held.T.tolist())
    for graph in (of(other), of(without)):  # whether or not they were given back
        found = figures(graph, "edges")
        assert found["clustering-correlation"] == pytest.approx(float(expected))
        errors = [networkx.average_clustering(part) for part in (without, private)]
        assert found["clustering-error"] == pytest.approx(abs(errors[0] - errors[1]))
