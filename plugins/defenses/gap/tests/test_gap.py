"""The budget against other accountants, the mechanism against its definition, and what queries can and cannot do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_defense_gap.accounting import SENSITIVITY, auc_bound, epsilon_of, noise_for, usual_delta
from mi_defense_gap.defense import AggregationPerturbation
from mi_defense_gap.network import AggregationNetwork, Hop, summed
from mi_graph.adapter import DeployedAdapter, GraphAdapter, GraphInputs
from mi_graph.augment import augment
from mi_graph.batch import Graphs
from mi_graph.cases import marked
from mi_graph.datasets.bundled import open_blocks
from mi_graph.evidence import Known
from mi_graph.graphs import Graph, symmetric
from mi_graph.measures import auc
from mi_graph.networks import GraphNetwork, gcn
from mi_graph.similarity import correlation, scores_of
from micore.artifacts import PluginUse
from micore.configs import make_config
from micore.errors import ConfigError, ModelError, UsageError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingConfig, accuracy, predict
from micore.models import load_defenses
from micore.registry import Registry
from micore.runtime import Checkpoints, Random, Runtime

DATA = open_blocks(None, nodes=200, kept=0.5)
GRAPH = DATA.graph
N = GRAPH.n_nodes
ADAPTER = GraphAdapter(DATA.input)
DEPLOYED = DeployedAdapter(ADAPTER, GRAPH)
CPU = Runtime(device=torch.device("cpu"))
TRAINING = TrainingConfig(epochs=120, batch_size=4096, learning_rate=1e-2, weight_decay=5e-2, augment="none")


def gap(**options: Any) -> AggregationPerturbation:
    return AggregationPerturbation(make_config(AggregationPerturbation.Config, options, "gap"))


def trainer(defense: AggregationPerturbation | None, runtime: Runtime = CPU, **changes: Any) -> Trainer:
    defenses = () if defense is None else (defense,)
    with runtime.seeded("parameters"):
        module: nn.Module = gcn(len(DATA.classes), DATA.input)
        for item in defenses:
            module = item.adapt_model(module)
    return Trainer(
        module, DATA.split("private"), config=TRAINING.model_copy(update=changes), adapter=ADAPTER, augment=augment,
        runtime=runtime, defenses=defenses, n_classes=len(DATA.classes),
    )  # fmt: skip


def trained(defense: AggregationPerturbation | None = None, runtime: Runtime = CPU) -> GraphNetwork:
    made = trainer(defense, runtime)
    made.fit()
    module = made.module.eval().requires_grad_(False)
    assert isinstance(module, GraphNetwork)
    return module


def asked(features: Tensor = GRAPH.features, rows: Tensor | None = None) -> GraphInputs:
    """Return the nodes of the private graph as its interface takes them."""
    return DEPLOYED(Known(features=features, n_edges=GRAPH.n_edges).nodes(rows))


def holdout_accuracy(module: nn.Module) -> float:
    part = DATA.split("holdout")
    assert part.labels is not None
    return accuracy(predict(module, part.take, len(part), ADAPTER, CPU), part.labels)


def told(scores: Tensor) -> float:
    """Return how well scores of all pairs tell kept edges from removed ones, the AUC."""
    truth = marked(DATA, None).scores
    assert truth is not None
    edges = truth >= 0.5
    return auc(scores[edges], truth[edges] == 1)


@pytest.fixture(scope="module")
def defense() -> AggregationPerturbation:
    return gap()


@pytest.fixture(scope="module")
def private(defense: AggregationPerturbation) -> GraphNetwork:
    return trained(defense)


@pytest.fixture(scope="module")
def plain() -> GraphNetwork:
    return trained()


# accounting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [1, 2, 5])
@pytest.mark.parametrize("noise", [0.5, 2.0, 10.0])
def test_the_budget_is_the_lowest_over_all_orders(noise: float, hops: int) -> None:
    """Each hop: two rows move by 1 each, so that order a costs a 2 / (2 noise^2)."""
    orders = torch.logspace(-4, 5, 200_000, dtype=torch.float64) + 1
    found = (hops * orders / noise**2 + math.log(1e6) / (orders - 1)).min()
    assert epsilon_of(noise, hops, 1e-6) == pytest.approx(float(found), rel=1e-4)


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_no_less_is_counted_than_by_a_tighter_accountant(noise: float) -> None:
    opacus = pytest.importorskip("opacus.accountants").RDPAccountant()
    for _ in range(2):
        opacus.step(noise_multiplier=noise / SENSITIVITY, sample_rate=1)
    found, tighter = epsilon_of(noise, 2, 1e-6), opacus.get_epsilon(1e-6)
    assert found is not None
    assert tighter < found < 1.2 * tighter


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 50.0])
def test_the_noise_for_a_budget_spends_it(epsilon: float) -> None:
    for hops in (1, 2, 16):
        assert epsilon_of(noise_for(epsilon, hops, 1e-6), hops, 1e-6) == pytest.approx(epsilon)
    assert noise_for(epsilon, 2, 1e-6) > noise_for(epsilon, 1, 1e-6)


def test_what_spends_nothing_and_what_has_no_budget() -> None:
    assert (epsilon_of(3.0, 0, 1e-6), noise_for(1.0, 0, 1e-6)) == (0, 0)
    assert epsilon_of(0, 2, 1e-6) is None
    assert (auc_bound(0, 2), auc_bound(3.0, 0)) == (1, 0.5)
    assert usual_delta(1000) == pytest.approx(1 / (1000 * 999 / 2))
    assert usual_delta(30) == usual_delta(1) == 1e-5


@pytest.mark.parametrize(("noise", "hops"), [(1.0, 1), (2.0, 3)])
def test_the_bound_is_that_of_two_normal_distributions(noise: float, hops: int) -> None:
    """Hops in which two numbers each move by 1, and the sum of all, which tells most."""
    draws = 40_000
    values = noise * Random(3).normal((2, draws, hops, 2)) + torch.tensor([1.0, 0.0])[:, None, None, None]
    found = auc(values.sum(dim=(2, 3)).flatten(), torch.arange(2 * draws) < draws)
    assert found == pytest.approx(auc_bound(noise, hops), abs=0.006)


def test_an_edge_moves_all_sums_together_by_the_sensitivity() -> None:
    rows = nn.functional.normalize(Random(0).normal((N, 8)), dim=1)
    both = torch.cat([GRAPH.edges, GRAPH.edges.flip(0)], dim=1)
    for edge in (0, 7, 100):
        fewer = torch.cat([GRAPH.edges[:, :edge], GRAPH.edges[:, edge + 1 :]], dim=1)
        moved = summed(rows, both) - summed(rows, torch.cat([fewer, fewer.flip(0)], dim=1))
        assert float(moved.norm()) == pytest.approx(SENSITIVITY, rel=1e-5)


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0])
def test_an_edge_is_told_no_better_than_the_noise_allows(noise: float) -> None:
    """Two nodes, joined or not, 4000 times each: whoever compares the published rows stays below the bound."""
    rows, draws = nn.functional.normalize(Random(0).normal((2, 4)), dim=1), 4000
    both, none = torch.tensor([[0, 1], [1, 0]]), torch.empty(2, 0, dtype=torch.int64)
    normal = Random(1).normal((2, draws, 2, 4))
    found = [
        torch.stack([(Hop()(rows, edges, noise * draw) * rows.flip(0)).sum() for draw in part])
        for edges, part in zip((both, none), normal, strict=True)
    ]
    is_edge = torch.arange(2 * draws) < draws
    reached, most = auc(torch.cat(found), is_edge), auc_bound(noise, 1)
    assert 0.5 + 0.5 * (most - 0.5) < reached < most + 0.01


# what is drawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.7, 1e6])
def test_the_sums_are_those_of_the_definition(noise: float) -> None:
    defense = gap(noise=noise)
    module = trained(defense)
    assert isinstance(module, AggregationNetwork)
    sums, rows = defense.sums(), module.encoded(GRAPH.features)
    assert sums is not None
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(N))
    adjacency, rng = torch.zeros(N, N), CPU.rng("gap", "noise", "train")
    adjacency[GRAPH.edges[0], GRAPH.edges[1]] = adjacency[GRAPH.edges[1], GRAPH.edges[0]] = 1
    for found in sums:
        rows = nn.functional.normalize(adjacency @ rows + noise * rng.normal((N, 16)), dim=1)
        torch.testing.assert_close(found, rows, rtol=1e-3, atol=1e-4)


def test_the_encoder_has_seen_no_edge() -> None:
    other = replace(DATA, graph=replace(GRAPH, edges=GRAPH.edges[:, :5]))
    encoders = []
    for data in (DATA, other):
        made = trainer(gap())
        made.split = data.split("private")
        made.fit()
        encoders.append(torch.cat([part.detach().flatten() for part in made.module.encoder.parameters()]))
    assert torch.equal(*encoders)


def test_a_training_that_was_killed_goes_on_with_the_same_sums(tmp_path: Any) -> None:
    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state: Any) -> None:
            super().offer(state)
            if state()["epoch"] == 2:
                raise KilledError

    def made(checkpoints: Checkpoints) -> tuple[Trainer, AggregationPerturbation]:
        defense = gap(encoder_epochs=3)
        return trainer(defense, CPU.with_checkpoints(checkpoints), epochs=4), defense

    whole, drawn = made(Checkpoints())
    whole.fit()
    with pytest.raises(KilledError):
        made(Stopping(tmp_path / "state", 0))[0].fit()
    again, kept = made(Checkpoints(tmp_path / "state"))
    again.fit()
    assert drawn.sums() is not None
    assert torch.equal(drawn.sums(), kept.sums())  # type: ignore[arg-type]
    assert kept.facts() == drawn.facts()
    for one, two in zip(again.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(one, two)


# what queries can do --------------------------------------------------------------------------------------


def test_no_query_looks_at_an_edge(private: GraphNetwork) -> None:
    none = DeployedAdapter(ADAPTER, Graph(GRAPH.features, torch.empty(2, 0, dtype=torch.int64)))
    named = Known(features=GRAPH.features, n_edges=GRAPH.n_edges).nodes()
    assert torch.equal(private(DEPLOYED(named)), private(none(named)))
    for service in ("embed", "explain"):
        assert torch.equal(private.serve(service, DEPLOYED(named[:5])), private.serve(service, none(named[:5])))


def test_asking_again_or_in_other_company_gives_the_same(private: GraphNetwork) -> None:
    whole = private(asked())
    assert torch.equal(whole, private(asked()))
    some = torch.tensor([3, 190, 7])
    torch.testing.assert_close(private(asked(rows=some)), whole[some])
    twice = Graphs((Graph.named(GRAPH.features),) * 2, torch.tensor([0, 1, 1]), torch.tensor([3, 3, 8]))
    torch.testing.assert_close(private(DEPLOYED(twice)), whole[[3, 3, 8]])


@pytest.mark.parametrize("factor", [0.0, 1.5, 100.0])
def test_other_features_move_the_answer_of_their_own_node_alone(private: GraphNetwork, factor: float) -> None:
    features = GRAPH.features.clone()
    features[5] *= factor
    moved = (private(asked(features)) - private(asked())).abs().sum(dim=1)
    assert float(moved[5]) > 0.01 or factor == 1.5
    assert moved.nonzero().flatten().tolist() in ([], [5])


def test_a_loaded_target_answers_as_the_trained_one(defense: AggregationPerturbation, private: GraphNetwork) -> None:
    again = gap()
    module = again.adapt_model(gcn(len(DATA.classes), DATA.input)).eval()
    module.load_state_dict(private.state_dict())
    again.load_state(dict(defense.state()))
    assert torch.equal(module(asked()), private(asked()))


def test_without_sums_it_looks_at_no_edge_either() -> None:
    module = gap().adapt_model(gcn(len(DATA.classes), DATA.input)).eval()
    bare = replace(asked(), edge_index=torch.empty(2, 0, dtype=torch.int64))
    assert torch.equal(module(asked()), module(bare))


def test_the_callers_own_graph_is_summed_up_without_noise(private: GraphNetwork) -> None:
    own = Graph(GRAPH.features, GRAPH.edges)
    edges = torch.zeros(N * (N - 1) // 2)
    relaxed = symmetric(edges, N)
    relaxed[GRAPH.edges[0], GRAPH.edges[1]] = relaxed[GRAPH.edges[1], GRAPH.edges[0]] = 1
    relaxed.requires_grad_(True)
    empty = torch.empty(2, 0, dtype=torch.int64)
    plainly = private(ADAPTER(Graphs.nodes_of(own)))
    softly = private(ADAPTER(Graphs.nodes_of(Graph(GRAPH.features, empty, weights=relaxed))))
    torch.testing.assert_close(plainly, softly, rtol=1e-4, atol=1e-5)
    softly.sum().backward()
    assert relaxed.grad is not None
    assert float(relaxed.grad.norm()) > 0
    assert not torch.allclose(plainly, private(asked()), atol=0.05)


def test_another_graph_in_its_place_is_refused(private: GraphNetwork) -> None:
    other = Graph(GRAPH.features[:50], torch.empty(2, 0, dtype=torch.int64), home=True)
    with pytest.raises(ModelError, match="own graph has 200 nodes, not 50"):
        private(ADAPTER(Graphs.nodes_of(other)))


# what attacks find, and what it costs ---------------------------------------------------------------------


def test_kept_edges_are_told_from_removed_ones_as_by_features_alone(plain: GraphNetwork, private: GraphNetwork) -> None:
    """By the answers, and by hidden features; the accuracy is that of features and a little more."""
    perceptron = trained(gap(hops=0))
    before, after, nothing = (
        [told(scores_of(values, correlation)) for values in (m(asked()).softmax(1), m.serve("embed", asked()))]
        for m in (plain, private, perceptron)
    )
    chance = 2 * math.sqrt((2 * GRAPH.n_edges + 1) / 12) / GRAPH.n_edges  # two deviations of the AUC of guessing
    assert min(before) - max(nothing) > chance
    assert max(after) - 0.5 < chance
    assert holdout_accuracy(private) >= holdout_accuracy(perceptron) - 0.01
    assert holdout_accuracy(plain) > holdout_accuracy(perceptron) + 0.03


def test_with_less_noise_the_target_is_more_accurate_and_tells_more() -> None:
    modules = [trained(gap(noise=noise)) for noise in (0.0, 30.0)]
    clear, noisy = map(holdout_accuracy, modules)
    assert clear > noisy + 0.02
    tells = [told(scores_of(module(asked()).softmax(dim=1), correlation)) for module in modules]
    assert tells[0] > tells[1] + 0.02


# facts, and what is refused -------------------------------------------------------------------------------


def test_the_card_tells_the_budget_and_its_unit(defense: AggregationPerturbation, private: GraphNetwork) -> None:
    facts = defense.facts()
    assert facts["epsilon"] == pytest.approx(8)
    assert facts["noise"] == pytest.approx(noise_for(8, 2, 1e-5))
    assert (facts["delta"], facts["hops"], facts["unit"]) == (1e-5, 2, "undirected edge")
    bare = gap(noise=0, hops=1)
    trainer(bare)
    assert bare.facts()["epsilon"] is None
    assert gap().facts() == {}


def test_other_networks_are_refused() -> None:
    for module in (nn.Linear(1, 1), gcn(2, InputSpec(shape=(3,), options={"task": "graph"}))):
        with pytest.raises(ModelError, match="takes the place of a graph network of mi-graph"):
            gap().adapt_model(module)


def test_defenses_that_change_the_edges_exclude_it() -> None:
    registry = Registry.discover()
    others = {"edge-rand", "lap-graph", "mc-gpb"} & {entry.spec.name for entry in registry.entries("defense")}
    for other in others:
        with pytest.raises(UsageError, match="both replace the target's edges"):
            load_defenses(registry, [PluginUse(name="gap"), PluginUse(name=other)], "graph", "gnn")


@pytest.mark.parametrize(
    "options", [{"epsilon": 0}, {"epsilon": 1, "noise": 1}, {"noise": -1}, {"hops": -1}, {"delta": 1}]
)
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        gap(**options)
