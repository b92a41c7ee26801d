"""Networks: relaxed edges agree with edges, gradients flow, and bad sizes are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mi_graph.adapter import EDGE_KINDS, TASK, GraphAdapter
from mi_graph.batch import Graphs
from mi_graph.graphs import Graph
from mi_graph.networks import gat, gcn, gin, rgcn, sage
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.runtime import Random

KINDS = {"gcn": gcn, "sage": sage, "gat": gat, "gin": gin, "rgcn": rgcn}
NODE_SPEC, GRAPH_SPEC = (InputSpec(shape=(5,), options={TASK: task}) for task in ("node", "graph"))


@pytest.fixture
def graph() -> Graph:
    edges = torch.tensor([[0, 0, 1, 2, 3, 4], [1, 2, 2, 3, 4, 5]])  # node 6 has no edge
    return Graph(Random(0).normal((7, 5)), edges)


@pytest.mark.parametrize("kind", KINDS)
def test_relaxed_edges_of_zero_and_one_are_edges(kind: str, graph: Graph) -> None:
    torch.manual_seed(0)
    network: Any = KINDS[kind](3, NODE_SPEC).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    weights = torch.zeros(7, 7)
    weights[graph.edges[0], graph.edges[1]] = weights[graph.edges[1], graph.edges[0]] = 1
    weights.requires_grad_(True)
    adapter = GraphAdapter(NODE_SPEC)
    plain = network(adapter(Graphs.nodes_of(graph)))
    relaxed = network(adapter(Graphs.nodes_of(Graph(graph.features, graph.edges[:, :0], weights=weights))))
    torch.testing.assert_close(relaxed, plain, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(relaxed.square().sum(), weights)
    assert gradient.isfinite().all()
    assert gradient[weights == 0].any()  # of edges that are not there


def test_kinds_of_edges_count_by_weights_of_their_own(graph: Graph) -> None:
    spec = InputSpec(shape=(5,), options={TASK: "node", EDGE_KINDS: 2})
    torch.manual_seed(0)
    network: Any = rgcn(3, spec).eval()
    adapter, kinds = GraphAdapter(spec), torch.tensor([0, 1, 1, 0, 1, 0])
    heterogeneous = Graph(graph.features, graph.edges, kinds=kinds)
    weights = torch.zeros(2, 7, 7)
    weights[kinds, graph.edges[0], graph.edges[1]] = weights[kinds, graph.edges[1], graph.edges[0]] = 1
    plain = network(adapter(Graphs.nodes_of(heterogeneous)))
    relaxed = network(adapter(Graphs.nodes_of(Graph(graph.features, graph.edges[:, :0], weights=weights))))
    torch.testing.assert_close(relaxed, plain, rtol=1e-4, atol=1e-4)
    other = network(adapter(Graphs.nodes_of(Graph(graph.features, graph.edges, kinds=1 - kinds))))
    assert not torch.allclose(other, plain, atol=1e-3)
    with pytest.raises(ModelError, match="relaxed edges of 2 kinds"):
        network(adapter(Graphs.nodes_of(Graph(graph.features, graph.edges[:, :0], weights=weights.sum(dim=0)))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_classifies_nodes_or_graphs(kind: str, graph: Graph) -> None:
    nodes: Any = KINDS[kind](3, NODE_SPEC, width=4, layers=3).eval()
    some = Graphs.nodes_of(graph, torch.tensor([4, 1]))
    everyone = nodes(GraphAdapter(NODE_SPEC)(Graphs.nodes_of(graph)))
    torch.testing.assert_close(nodes(GraphAdapter(NODE_SPEC)(some)), everyone[[4, 1]])
    graphs: Any = KINDS[kind](3, GRAPH_SPEC).eval()
    other = Graph(graph.features[:3], graph.edges[:, :2])
    both = graphs(GraphAdapter(GRAPH_SPEC)(Graphs.whole([graph, other])))
    assert both.shape == (2, 3)
    torch.testing.assert_close(both[1:], graphs(GraphAdapter(GRAPH_SPEC)(Graphs.whole([other]))))


@pytest.mark.parametrize(
    ("spec", "n_classes", "options"),
    [
        (InputSpec(shape=(5,)), 3, {}),
        (InputSpec(shape=(), options={TASK: "node"}), 3, {}),
        (NODE_SPEC, 0, {}),
        (NODE_SPEC, 3, {"layers": 0}),
        (NODE_SPEC, 3, {"dropout": 1.0}),
    ],
)
def test_sizes_that_make_no_network_are_refused(spec: InputSpec, n_classes: int, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        gcn(n_classes, spec, **options)
