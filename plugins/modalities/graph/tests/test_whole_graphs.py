"""Many private graphs: how they are named, embedded, attacked and compared."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_graph.adapter import TASK, DeployedGraphs, GraphAdapter
from mi_graph.baselines import floors
from mi_graph.batch import Graphs, joined
from mi_graph.cases import structure_cases, truths
from mi_graph.colours import colour_counts, kernel
from mi_graph.datasets.bundled import open_karate
from mi_graph.datasets.motifs import open_motifs
from mi_graph.evidence import KnownGraph
from mi_graph.graphs import Graph, ordered
from mi_graph.modality import GraphModality
from mi_graph.networks import EMBED, EXPLAIN, gin
from mi_graph.overlap import measure_overlap
from mi_graph.whole_baselines import mean_density
from mi_graph.whole_cases import known_graph_of
from micore.errors import ModelError, UsageError
from micore.inputs import InputSpec
from micore.runtime import Random

DATA = open_motifs(None, graphs=60)
PRIVATE, PUBLIC = (DATA.split(name).graphs for name in ("private", "public"))
ADAPTER = GraphAdapter(DATA.input)
MODALITY: Any = GraphModality()


def random_graph(n: int, share: float, seed: int) -> networkx.Graph:
    return networkx.gnp_random_graph(n, share, seed=seed)


def of(graph: networkx.Graph) -> Graph:
    edges = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    return Graph(torch.ones(len(graph), 1), ordered(edges))


# names ------------------------------------------------------------------------------------------------------------


def test_only_an_interface_knows_the_graph_behind_a_number() -> None:
    deployed = DeployedGraphs(ADAPTER, PRIVATE)
    named = Graphs.whole([Graph.numbered(row, PRIVATE[row].n_nodes) for row in (3, 0)])
    inputs, expected = deployed(named), ADAPTER(Graphs.whole([PRIVATE[3], PRIVATE[0]]))
    assert torch.equal(inputs.features, expected.features)
    assert torch.equal(inputs.edge_index, expected.edge_index)
    for graph in named.graphs:
        assert graph.features.numel() == graph.edges.numel() == 0
    with pytest.raises(ModelError, match="known to the target's interface alone"):
        ADAPTER(named)
    with pytest.raises(ModelError, match="there is no private graph 24, they count from 0 to 23"):
        deployed(Graphs.whole([Graph.numbered(24, 8)]))
    with pytest.raises(ModelError, match=r"there is no private graph None"):
        deployed(Graphs.whole([Graph.named(PRIVATE[0].features)]))
    with pytest.raises(ModelError, match="private graph 0 has"):
        deployed(Graphs.whole([Graph.numbered(0, PRIVATE[0].n_nodes + 1)]))


def test_what_is_sent_is_used_as_it_is_sent() -> None:
    sent = Graphs.whole([PUBLIC[0]])
    assert torch.equal(DeployedGraphs(ADAPTER, PRIVATE)(sent).features, PUBLIC[0].features)


def test_the_interface_of_such_data_is_that_of_many_graphs() -> None:
    assert isinstance(MODALITY.deployed(ADAPTER, DATA), DeployedGraphs)
    karate = open_karate(None)
    assert not isinstance(MODALITY.deployed(GraphAdapter(karate.input), karate), DeployedGraphs)


def test_graphs_of_one_size_and_other_numbers_differ() -> None:
    one, two = Graph.numbered(0, 5), Graph.numbered(1, 5)
    assert one != two
    assert len(joined([Graphs.whole([one]), Graphs.whole([two]), Graphs.whole([one])]).graphs) == 2


def test_equal_graphs_are_each_asked_about() -> None:
    spec = InputSpec(shape=(1,), options={TASK: "graph"})
    ring, path = of(networkx.cycle_graph(4)), of(networkx.path_graph(3))
    inputs = GraphAdapter(spec)([Graphs.whole([ring]), Graphs.whole([path]), Graphs.whole([ring])])
    assert len(inputs) == 3
    assert inputs.graph_of.bincount().tolist() == [4, 3, 4]


# embeddings -------------------------------------------------------------------------------------------------------


def test_an_embedding_is_what_goes_into_the_last_layer() -> None:
    torch.manual_seed(0)
    network = gin(3, DATA.input).eval()
    inputs = ADAPTER(Graphs.whole(PRIVATE[:5]))
    embedded = network.serve(EMBED, inputs)
    assert network.head is not None
    torch.testing.assert_close(network.head(embedded), network(inputs))
    alone = network.serve(EMBED, ADAPTER(Graphs.whole([PRIVATE[3]])))
    torch.testing.assert_close(alone[0], embedded[3])
    with pytest.raises(UsageError, match="explain is there for nodes, not for whole graphs"):
        network.serve(EXPLAIN, inputs)


def test_an_embedding_forgets_the_order_of_nodes() -> None:
    torch.manual_seed(0)
    network, graph = gin(3, DATA.input).eval(), PRIVATE[0]
    order = Random(0).permutation(graph.n_nodes)
    places = torch.empty_like(order).scatter_(0, order, torch.arange(graph.n_nodes))
    turned = Graph(graph.features[order], ordered(places[graph.edges]))
    torch.testing.assert_close(*(network.serve(EMBED, ADAPTER(Graphs.whole([item]))) for item in (graph, turned)))


# cases ------------------------------------------------------------------------------------------------------------


def test_each_private_graph_is_a_case_that_names_it() -> None:
    cases = structure_cases(DATA, None, None)
    assert [case.id for case in cases] == [f"graph-{row}" for row in range(24)]
    assert [case.evidence for case in cases[:2]] == [
        KnownGraph(number=row, n_nodes=PRIVATE[row].n_nodes) for row in (0, 1)
    ]
    assert [case.id for case in structure_cases(DATA, "2-3,9", "size")] == ["graph-2", "graph-3", "graph-9"]
    assert len(structure_cases(open_motifs(None), None, None)) == 50
    found = truths(cases, DATA)["graph-5"].sample.graphs[0]
    assert torch.equal(found.edges, PRIVATE[5].edges)
    assert found.features.shape == (PRIVATE[5].n_nodes, 0)
    assert found.scores is None
    stored = [replace(case, evidence=None) for case in cases]
    assert truths(stored, DATA)["graph-5"].sample == truths(cases, DATA)["graph-5"].sample


def test_what_fits_no_case_is_refused() -> None:
    with pytest.raises(UsageError, match="of many private graphs not the 'features' are known, but their size"):
        structure_cases(DATA, None, "features")
    with pytest.raises(UsageError, match="--classes 24 on 24 private samples"):
        structure_cases(DATA, "24", None)
    (node_case,) = structure_cases(open_karate(None), None, None)
    with pytest.raises(UsageError, match="is about no whole graph"):
        known_graph_of(node_case)


def test_floors_look_at_public_graphs_and_sizes_alone() -> None:
    cases = structure_cases(DATA, None, None)
    found = {name: [item.samples.graphs[0] for item in items] for name, items in floors(cases, DATA).items()}
    sizes = [graph.n_nodes for graph in PRIVATE]
    public = {(graph.n_nodes, graph.edges.numpy().tobytes()) for graph in PUBLIC}
    assert found.keys() == {"erdos-renyi", "random-public", "public-of-size"}
    assert [graph.n_nodes for graph in found["erdos-renyi"]] == sizes
    assert mean_density(found["erdos-renyi"]) == pytest.approx(mean_density(PUBLIC), rel=0.15)
    for name in ("random-public", "public-of-size"):
        assert all((graph.n_nodes, graph.edges.numpy().tobytes()) in public for graph in found[name])
    gaps = [abs(graph.n_nodes - size) for graph, size in zip(found["public-of-size"], sizes, strict=True)]
    assert max(gaps) <= min(max(abs(graph.n_nodes - size) for graph in PUBLIC) for size in sizes)
    assert sum(gaps) < sum(abs(graph.n_nodes - size) for graph, size in zip(found["random-public"], sizes, strict=True))
    again = {case.id: item for case, item in zip(cases[::-1], floors(cases[::-1], DATA)["erdos-renyi"], strict=True)}
    assert again["graph-4"].samples.graphs[0] == found["erdos-renyi"][4]


def test_overlap_counts_equal_graphs_in_any_order() -> None:
    apart = measure_overlap(DATA)
    assert apart["public"]["equal"] == 0
    order = Random(0).permutation(PRIVATE[0].n_nodes)
    places = torch.empty_like(order).scatter_(0, order, torch.arange(PRIVATE[0].n_nodes))
    turned = Graph(PRIVATE[0].features[order], ordered(places[PRIVATE[0].edges]))
    plain = Graph(torch.zeros_like(turned.features), turned.edges)
    row = int(DATA.rows["public"][0])
    for graph, equal in ((turned, 1), (plain, 0)):
        leaking = replace(DATA, graphs=(*DATA.graphs[:row], graph, *DATA.graphs[row + 1 :]))
        found = measure_overlap(leaking)["public"]
        assert found["equal"] == equal
        assert 0 <= found["same_edges"] - apart["public"]["same_edges"] <= 1
        assert found["same_edges"] >= 1


def test_drawings_of_whole_graphs_stand_alone() -> None:
    truth = truths(structure_cases(DATA, "0", None), DATA)["graph-0"].sample
    drawn = MODALITY.show_against(truth, Graphs.whole([PUBLIC[0]]), 1)
    assert drawn == MODALITY.show(Graphs.whole([PUBLIC[0]]), 1)


# colours ----------------------------------------------------------------------------------------------------------


def by_networkx(graph: networkx.Graph, rounds: int) -> Counter[Any]:
    """Count colours as networkx hashes them: a node has the first one, and one of each round."""
    for node, degree in graph.degree:
        graph.nodes[node]["degree"] = str(degree)
    hashes = networkx.weisfeiler_lehman_subgraph_hashes(graph, node_attr="degree", iterations=rounds)
    counts: Counter[Any] = Counter(str(degree) for _, degree in graph.degree)
    for found in hashes.values():
        counts.update(enumerate(found))
    return counts


@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 0.8), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_the_kernel_is_that_of_colours_by_networkx(n: int, m: int, share: float, seed: int) -> None:
    one, two = random_graph(n, share, seed), random_graph(m, share, seed + 1)
    first, second = (by_networkx(graph, 4) for graph in (one, two))
    shared = sum(count * second[colour] for colour, count in first.items())
    sizes = [sum(count**2 for count in counts.values()) for counts in (first, second)]
    ours = kernel(colour_counts(of(one), 4), colour_counts(of(two), 4))
    assert ours == pytest.approx(shared / math.sqrt(sizes[0] * sizes[1]))


def test_equal_graphs_in_another_order_are_alike_and_others_not() -> None:
    graph = random_graph(12, 0.3, 1)
    turned = networkx.relabel_nodes(graph, dict(zip(range(12), Random(0).permutation(12).tolist(), strict=True)))
    assert kernel(colour_counts(of(graph)), colour_counts(of(turned))) == pytest.approx(1)
    assert kernel(colour_counts(of(graph)), colour_counts(of(random_graph(12, 0.3, 2)))) < 0.5
