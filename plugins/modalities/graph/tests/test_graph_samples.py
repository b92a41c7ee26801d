"""Graphs, pairs and batches: what they hold, refuse and give back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_graph.adapter import TASK, DeployedAdapter, GraphAdapter
from mi_graph.augment import augment
from mi_graph.batch import Graphs, joined, pack, unpack
from mi_graph.graphs import Graph, all_pairs, likeliest, n_pairs, ordered, places_of, symmetric
from micore.errors import ModelError, UsageError
from micore.inputs import InputSpec
from micore.runtime import Random

NODE_SPEC, GRAPH_SPEC = (InputSpec(shape=(3,), options={TASK: task}) for task in ("node", "graph"))


def path_of(n: int, width: int = 3) -> Graph:
    return Graph(torch.arange(n * width).reshape(n, width).float(), torch.tensor([range(n - 1), range(1, n)]))


@given(st.integers(2, 12))
@settings(deadline=None)
def test_places_are_those_in_all_pairs(n: int) -> None:
    pairs = all_pairs(n)
    assert pairs.shape == (2, n_pairs(n))
    assert places_of(pairs, n).tolist() == list(range(n_pairs(n)))


def test_pairs_are_ordered_once_and_without_loops() -> None:
    assert ordered(torch.tensor([[3, 0, 1, 2, 0], [1, 2, 3, 2, 2]])).tolist() == [[0, 1], [2, 3]]
    assert ordered(torch.tensor([[1], [1]])).shape == (2, 0)


def test_the_likeliest_pairs_are_edges_and_values_a_matrix() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.9, 0.2, 0.0])  # 01 02 03 12 13 23
    assert likeliest(scores, 4, 3).tolist() == [[0, 0, 1], [2, 3, 2]]
    asked = torch.tensor([[0, 1, 2], [3, 3, 3]])
    assert likeliest(torch.tensor([0.0, 2.0, 1.0]), 4, 2, asked).tolist() == [[1, 2], [3, 3]]
    matrix = symmetric(scores, 4)
    assert torch.equal(matrix, matrix.T)
    assert matrix[1, 2] == scores[3]
    assert not matrix.diagonal().any()


@pytest.mark.parametrize(
    "parts",
    [
        {"features": torch.zeros(3)},
        {"edges": torch.tensor([[1], [0]])},
        {"edges": torch.tensor([[0], [3]])},
        {"scores": torch.zeros(4)},
        {"scores": torch.zeros(3), "pairs": torch.zeros(2, 2)},
        {"weights": torch.zeros(2, 2)},
    ],
)
def test_parts_that_do_not_fit_make_no_graph(parts: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Graph(**{"features": torch.zeros(3, 2), "edges": torch.tensor([[0], [1]]), **parts})  # type: ignore[arg-type]


def test_samples_come_back_from_tensors() -> None:
    first, second = path_of(4), Graph(torch.empty(3, 0), torch.tensor([[0], [2]]), scores=torch.rand(3))
    samples = joined([Graphs.nodes_of(first, torch.tensor([2, 0])), Graphs.whole([second]), Graphs.nodes_of(first)])
    assert len(samples) == 7
    assert len(samples.graphs) == 2
    again = unpack(pack(samples))
    assert again == samples
    assert hash(again) == hash(samples)
    assert list(samples[1:3]) == [samples[1], samples[-5]]
    assert samples != samples[:3]


def test_an_adapter_puts_graphs_side_by_side() -> None:
    first, second = path_of(3), path_of(2)
    inputs = GraphAdapter(NODE_SPEC)([Graphs.nodes_of(first, torch.tensor([1])), Graphs.nodes_of(second)])
    assert inputs.edge_index.tolist() == [[0, 1, 3, 1, 2, 4], [1, 2, 4, 0, 1, 3]]
    assert inputs.rows is not None
    assert inputs.rows.tolist() == [1, 3, 4]
    assert inputs.graph_of.tolist() == [0, 0, 0, 1, 1]
    assert inputs.shape == (3, 3)
    assert len(GraphAdapter(GRAPH_SPEC)(Graphs.whole([first, second]))) == 2


def test_what_does_not_fit_a_network_is_refused() -> None:
    adapter = GraphAdapter(NODE_SPEC)
    relaxed = Graph(torch.zeros(2, 3), torch.empty(2, 0, dtype=torch.int64), weights=torch.zeros(2, 2))
    cases = [
        ("no sample", Graphs((), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))),
        ("takes 3 features of a node, not 5", Graphs.nodes_of(path_of(2, 5))),
        ("classifies nodes, not whole graphs", Graphs.whole([path_of(2)])),
        ("known to the target's interface alone", Graphs.nodes_of(Graph.named(torch.zeros(2, 3)))),
        ("one by one", [Graphs.nodes_of(relaxed), Graphs.nodes_of(path_of(2))]),
    ]
    for message, samples in cases:
        with pytest.raises(ModelError, match=message):
            adapter(samples)
    with pytest.raises(ModelError, match="classifies whole graphs"):
        GraphAdapter(GRAPH_SPEC)(Graphs.nodes_of(path_of(2)))
    with pytest.raises(ModelError, match="takes"):
        GraphAdapter(InputSpec(shape=(3,)))


def test_only_an_interface_knows_the_private_edges() -> None:
    private = path_of(4)
    deployed = DeployedAdapter(GraphAdapter(NODE_SPEC), private)
    named = Graphs.nodes_of(Graph.named(2 * private.features))
    inputs = deployed(named)
    assert torch.equal(inputs.edge_index, GraphAdapter(NODE_SPEC)(Graphs.nodes_of(private)).edge_index)
    assert torch.equal(inputs.features, 2 * private.features)
    assert deployed(Graphs.nodes_of(path_of(2))).edge_index.shape == (2, 2)
    with pytest.raises(ModelError, match="has 4 nodes, not 3"):
        deployed(Graphs.nodes_of(Graph.named(torch.zeros(3, 3))))
    # beside another graph its edges would not count as the target's own, which defenses replace
    with pytest.raises(ModelError, match="in batches of their own"):
        deployed([named, Graphs.nodes_of(path_of(2))])


def test_augmentation_leaves_edges_out_and_knows_its_strengths() -> None:
    samples = Graphs.nodes_of(path_of(200))
    thinned = augment(samples, "strong", Random(0))
    assert 100 < thinned.graphs[0].n_edges < 180
    assert samples.graphs[0].n_edges == 199
    with pytest.raises(UsageError, match="no augmentation 'much'"):
        augment(samples, "much", Random(0))
