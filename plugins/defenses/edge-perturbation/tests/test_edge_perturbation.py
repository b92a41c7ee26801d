"""Chances of the mechanisms, and targets that are trained and asked on changed edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mi_defense_edge_perturbation.defense import DegreePreserving, EdgeRand, PrivateEdgesConfig, SwapConfig
from mi_defense_edge_perturbation.perturbing import LARGEST, noisy, randomised, swapped
from mi_graph.adapter import TASK, DeployedAdapter, GraphAdapter
from mi_graph.batch import Graphs
from mi_graph.datasets.bundled import open_blocks
from mi_graph.evidence import Known
from mi_graph.graphs import Graph, n_pairs, places_of
from mi_graph.networks import gcn
from micore.contracts import Defense
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.registry import Registry
from micore.runtime import Random, Runtime
from micore.testing.lab import Lab, restored, train_toy

DATA = open_blocks(None, nodes=300, degree=8.0)
GRAPH = DATA.graph


def kept(edges: torch.Tensor) -> int:
    return int(torch.isin(places_of(edges, 300), places_of(GRAPH.edges, 300)).sum())


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_randomised_response_flips_with_its_chance(epsilon: float) -> None:
    edges = randomised(GRAPH, epsilon, Random(0))
    flip, others = 1 / (1 + math.exp(epsilon)), n_pairs(300) - GRAPH.n_edges
    assert kept(edges) / GRAPH.n_edges == pytest.approx(1 - flip, abs=0.05)
    false = edges.shape[1] - kept(edges)
    assert false == pytest.approx(others * flip, abs=4 * math.sqrt(others * flip))


def test_laplace_noise_keeps_more_with_a_larger_budget() -> None:
    shares = [kept(noisy(GRAPH, epsilon, Random(1))) / GRAPH.n_edges for epsilon in (0.5, 6.0, 12.0)]
    assert shares[0] < 0.2 < shares[1] < shares[2]
    assert shares[2] > 0.9
    assert noisy(GRAPH, 12.0, Random(1)).shape[1] == pytest.approx(GRAPH.n_edges, abs=60)


def test_a_chance_is_bounded_by_the_budget() -> None:
    """Of two graphs that differ in one edge, over many draws: how much likelier is the edge seen?"""
    small = Graph(torch.zeros(3, 1), torch.tensor([[0], [1]]))
    without = Graph(torch.zeros(3, 1), torch.empty(2, 0, dtype=torch.int64))
    seen = [
        sum(
            bool((randomised(graph, 1.0, Random(seed)) == torch.tensor([[0], [1]])).all(dim=0).any())
            for seed in range(2000)
        )
        for graph in (small, without)
    ]
    assert seen[0] / seen[1] == pytest.approx(math.e, rel=0.15)


def test_swaps_keep_degrees() -> None:
    edges = swapped(GRAPH, 0.5, Random(2))
    assert torch.equal(Graph(GRAPH.features, edges).degrees(), GRAPH.degrees())
    assert 0.3 < kept(edges) / GRAPH.n_edges < 0.7
    assert torch.equal(swapped(GRAPH, 0.0, Random(2)), GRAPH.edges)
    alone = Graph(torch.zeros(3, 1), torch.tensor([[0], [1]]))
    assert torch.equal(swapped(alone, 1.0, Random(2)), alone.edges)


def test_too_many_pairs_are_refused() -> None:
    large = Graph(torch.zeros(LARGEST + 1, 1), torch.tensor([[0], [1]]))
    for mechanism in (randomised, noisy):
        with pytest.raises(ModelError, match="does not fit into memory"):
            mechanism(large, 1.0, Random(0))


def test_a_target_is_asked_on_the_edges_it_was_trained_on() -> None:
    lab = Lab(Registry.discover())
    setting = lab.setting("graph", ("structure",))
    modality, data = lab.modality("graph"), setting.dataset
    defense = EdgeRand(PrivateEdgesConfig(epsilon=2.0))
    bundle = train_toy(setting, modality, defenses=[defense])
    again = EdgeRand(PrivateEdgesConfig(epsilon=2.0))
    module = restored(setting, bundle, defenses=[again])
    again.load_state(dict(defense.state()))
    edges = defense.edges()
    assert edges is not None
    assert defense.facts() == {"epsilon": 2.0, "edges": edges.shape[1]}
    graph = data.split("private").graph  # type: ignore[attr-defined]
    adapter = GraphAdapter(data.input)
    deployed = DeployedAdapter(adapter, graph)
    known = Known(features=graph.features, n_edges=graph.n_edges)
    module.eval()
    asked = module(deployed(known.nodes()))
    torch.testing.assert_close(asked, module(adapter(Graphs.nodes_of(Graph(graph.features, edges)))))
    assert not torch.allclose(asked, module(adapter(Graphs.nodes_of(Graph(graph.features, graph.edges)))))
    twice = Graphs((Graph.named(graph.features),) * 2, torch.tensor([0, 1]), torch.tensor([3, 3]))
    torch.testing.assert_close(module(deployed(twice)), asked[[3, 3]])


def test_another_seed_changes_other_edges() -> None:
    lab = Lab(Registry.discover())
    setting = lab.setting("graph", ("structure",))
    from micore.testing.lab import train_setting

    found = []
    for seed in (0, 0, 1):
        defense = DegreePreserving(SwapConfig())
        train_setting(
            setting, lab.modality("graph"), Runtime.create("cpu", seed=seed), "classifier", [defense], epochs=1
        )
        found.append(defense.edges())
    assert torch.equal(found[0], found[1])  # type: ignore[arg-type]
    assert found[0].shape != found[2].shape or not torch.equal(found[0], found[2])  # type: ignore[union-attr, arg-type]


def test_other_networks_are_refused() -> None:
    defense: Defense = EdgeRand(PrivateEdgesConfig())
    with pytest.raises(ModelError, match="Linear is no network of mi-graph"):
        defense.adapt_model(nn.Linear(1, 1))


def test_networks_of_many_graphs_are_refused() -> None:
    """They have no graph of their own: the edges that are asked about would stay as they are."""
    network = gcn(2, InputSpec(shape=(3,), options={TASK: "graph"}))
    with pytest.raises(ModelError, match="this network classifies many"):
        EdgeRand(PrivateEdgesConfig()).adapt_model(network)
