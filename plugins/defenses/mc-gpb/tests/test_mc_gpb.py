"""The measures against their definitions, what is trained on which edges, and what attacks make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mi_defense_mc_gpb.defense import MarkovChainPrivacyBottleneck
from mi_defense_mc_gpb.dependence import BANDWIDTH, MEASURES, cka
from mi_graph.adapter import DeployedAdapter, GraphAdapter, GraphInputs
from mi_graph.augment import augment
from mi_graph.batch import Graphs
from mi_graph.cases import marked
from mi_graph.datasets.bundled import open_blocks
from mi_graph.evidence import Known
from mi_graph.graphs import Graph, all_pairs, places_of
from mi_graph.measures import auc
from mi_graph.networks import GraphNetwork, gcn, rgcn
from mi_graph.similarity import correlation, scores_of
from micore.artifacts import PluginUse
from micore.configs import make_config
from micore.errors import ConfigError, ModelError, UsageError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingConfig, accuracy, predict
from micore.models import load_defenses
from micore.registry import Registry
from micore.runtime import Random, Runtime

DATA = open_blocks(None, nodes=200, kept=0.5)
GRAPH = DATA.graph
ADAPTER = GraphAdapter(DATA.input)
TRAINING = TrainingConfig(epochs=120, batch_size=4096, learning_rate=1e-2, weight_decay=5e-2, augment="none")


def mc_gpb(**options: Any) -> MarkovChainPrivacyBottleneck:
    return MarkovChainPrivacyBottleneck(make_config(MarkovChainPrivacyBottleneck.Config, options, "mc-gpb"))


@dataclass
class Trained:
    """A target on the graph of these tests, and what its interface shows."""

    module: GraphNetwork
    defense: MarkovChainPrivacyBottleneck | None

    def inputs(self, features: Tensor = GRAPH.features) -> GraphInputs:
        known = Known(features=features, n_edges=GRAPH.n_edges)
        return DeployedAdapter(ADAPTER, GRAPH)(known.nodes())

    def accuracy(self) -> float:
        part = DATA.split("holdout")
        assert part.labels is not None
        return accuracy(
            predict(self.module, part.take, len(part), ADAPTER, Runtime(device=torch.device("cpu"))), part.labels
        )

    @torch.no_grad()
    def hidden(self) -> Tensor:
        return self.module.serve("embed", self.inputs())

    @torch.no_grad()
    def influence(self) -> Tensor:
        """Return what LinkTeller sees, of all pairs."""
        plain, n = self.module(self.inputs()).softmax(dim=1), GRAPH.n_nodes
        found = torch.zeros(n, n)
        for node in range(n):
            features = GRAPH.features.clone()
            features[node] *= 1.5
            found[node] = (self.module(self.inputs(features)).softmax(dim=1) - plain).norm(dim=1)
        return (found + found.T)[tuple(all_pairs(n))]


def trained(defense: MarkovChainPrivacyBottleneck | None = None, seed: int = 0) -> Trained:
    runtime, defenses = Runtime(device=torch.device("cpu"), seed=seed), () if defense is None else (defense,)
    with runtime.seeded("parameters"):
        module: nn.Module = gcn(len(DATA.classes), DATA.input)
        for item in defenses:
            module = item.adapt_model(module)
    trainer = Trainer(
        module, DATA.split("private"), config=TRAINING, adapter=ADAPTER, augment=augment, runtime=runtime,
        defenses=defenses, n_classes=len(DATA.classes),
    )  # fmt: skip
    trainer.fit()
    found = trainer.module.eval()
    assert isinstance(found, GraphNetwork)
    return Trained(found, defense)


def told(scores: Tensor) -> float:
    """Return how well scores of all pairs tell kept edges from removed ones, the AUC."""
    truth = marked(DATA, None).scores
    assert truth is not None
    edges = truth >= 0.5
    return auc(scores[edges], truth[edges] == 1)


@pytest.fixture(scope="module")
def plain() -> Trained:
    return trained()


@pytest.fixture(scope="module")
def thinned() -> Trained:
    return trained(mc_gpb(dropped=0.6, beta=0, gamma=0))


# measures -------------------------------------------------------------------------------------------------


def rows(m: int = 30, d: int = 4, seed: int = 0) -> Tensor:
    return Random(seed).normal((m, d))


def entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def by_hand(name: str, one: np.ndarray, two: np.ndarray) -> float:
    """Return a measure by its definition, in float64 and with all matrices made."""
    m = len(one)
    k, l_ = one @ one.T, two @ two.T
    if name == "dp":
        return float(np.linalg.norm(l_ @ k)) / m**2
    if name == "kde":
        a, b = (np.exp(-((gram / BANDWIDTH) ** 2) / 2) for gram in (k, l_))
        joint = np.zeros((m, m))
        for row in range(m):
            joint += np.outer(a[row], b[row])
        single = [entropy(part.sum(axis=0) / part.sum()) for part in (a, b)]
        return 2 * (sum(single) - entropy(joint / joint.sum())) / sum(single)
    centre = np.eye(m) - 1 / m
    hsic = [np.trace(x @ centre @ y @ centre) for x, y in ((k, l_), (k, k), (l_, l_))]
    return float(hsic[0] / (m - 1) ** 2 if name == "hsic" else hsic[0] / np.sqrt(hsic[1] * hsic[2]))


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_its_definition(name: str) -> None:
    for one, two in ((rows(), rows(seed=1)), (rows(d=3), rows(d=5, seed=2)), (rows(), 2 * rows())):
        expected = by_hand(name, one.double().numpy(), two.double().numpy())
        assert float(MEASURES[name](one, two)) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["cka", "hsic"])
def test_rows_that_belong_together_tell_more_of_each_other_than_shuffled_ones(name: str) -> None:
    one = rows(200)
    near, far = one + 0.1 * rows(200, seed=1), one[Random(2).permutation(200)]
    assert MEASURES[name](one, near) > 2 * MEASURES[name](one, far)


def test_the_estimate_of_the_code_is_no_mutual_information() -> None:
    """Why it is not the default: rows about four centres tell of each other, and it is negative all the same."""
    centres, of = Random(5).normal((4, 4)).relu(), Random(6).integers(4, (400,))
    one, two = ((centres[of] + 0.2 * Random(seed).normal((400, 4))).relu() for seed in (0, 1))
    assert float(cka(one, two)) > 0.8
    assert float(MEASURES["kde"](one, two)) < -0.05


@pytest.mark.parametrize("name", MEASURES)
def test_rows_of_nothing_have_finite_gradients(name: str) -> None:
    one = torch.zeros(5, 3, requires_grad=True)
    MEASURES[name](one, torch.zeros(5, 3)).backward()
    assert one.grad is not None
    assert bool(one.grad.isfinite().all())


# edges ----------------------------------------------------------------------------------------------------


def test_a_share_of_the_edges_is_left_out_once_and_the_answers_are_on_the_others(thinned: Trained) -> None:
    assert thinned.defense is not None
    edges = thinned.defense.edges()
    assert edges is not None
    assert edges.shape[1] == round(0.4 * GRAPH.n_edges)
    assert bool(torch.isin(places_of(edges, 200), places_of(GRAPH.edges, 200)).all())
    asked = thinned.module(thinned.inputs())
    torch.testing.assert_close(asked, thinned.module(ADAPTER(Graphs.nodes_of(Graph(GRAPH.features, edges)))))
    assert not torch.allclose(asked, thinned.module(ADAPTER(Graphs.nodes_of(Graph(GRAPH.features, GRAPH.edges)))))
    again = mc_gpb()
    again.load_state(dict(thinned.defense.state()))
    assert again.facts() == thinned.defense.facts() == {"edges": edges.shape[1]}
    assert again.edges() is edges


def test_edges_that_are_left_out_have_no_influence(plain: Trained, thinned: Trained) -> None:
    before, after = plain.influence(), thinned.influence()
    assert told(before) > 0.95
    assert told(after) == pytest.approx(0.5 + 0.4 * (told(before) - 0.5), abs=0.07)
    assert told(scores_of(thinned.hidden(), correlation)) < told(scores_of(plain.hidden(), correlation))
    assert thinned.accuracy() > plain.accuracy() - 0.15


# the loss -------------------------------------------------------------------------------------------------


def dependence(target: Trained) -> float:
    one, two = GRAPH.edges
    hidden = target.hidden()
    return float(cka(hidden[one], hidden[two]))


def test_the_terms_lower_what_neighbours_tell_of_each_other(thinned: Trained) -> None:
    """On edges of which six in ten were left out, and by a measure that is a weight of nothing here."""
    guarded = trained(mc_gpb(dropped=0.6, beta=0.5, gamma=0.5, measure="cka"))
    assert dependence(guarded) < 0.6 * dependence(thinned)
    truth = marked(DATA, None).scores
    assert truth is not None
    known = truth != 0.5
    leaks = [auc(scores_of(item.hidden(), correlation)[known], truth[known] == 1) for item in (thinned, guarded)]
    assert leaks[1] < leaks[0] - 0.05


@pytest.mark.parametrize("name", MEASURES)
def test_all_measures_train_and_repeat(name: str) -> None:
    config = TRAINING.model_copy(update={"epochs": 3})
    found = []
    for _ in range(2):
        runtime, defense = Runtime(device=torch.device("cpu")), mc_gpb(measure=name, samples=50)
        with runtime.seeded("parameters"):
            module = defense.adapt_model(gcn(len(DATA.classes), DATA.input, layers=3))
        trainer = Trainer(
            module, DATA.split("private"), config=config, adapter=ADAPTER, augment=augment, runtime=runtime,
            defenses=[defense], n_classes=len(DATA.classes),
        )  # fmt: skip
        trainer.fit()
        found.append(torch.cat([item.detach().flatten() for item in trainer.module.parameters()]))
    assert torch.equal(*found)
    assert bool(found[0].isfinite().all())


# what is refused ------------------------------------------------------------------------------------------


def test_other_networks_are_refused() -> None:
    of_kinds = rgcn(2, InputSpec(shape=(3,), options={"task": "node", "kinds": 2}))
    for module in (nn.Linear(1, 1), gcn(2, InputSpec(shape=(3,), options={"task": "graph"})), of_kinds):
        with pytest.raises(ModelError, match=r"no network of mi-graph|classifies many|have no kinds"):
            mc_gpb().adapt_model(module)


def test_defenses_that_change_the_edges_exclude_it() -> None:
    registry = Registry.discover()
    others = {"edge-rand", "lap-graph", "gap"} & {entry.spec.name for entry in registry.entries("defense")}
    for other in others:
        with pytest.raises(UsageError, match="both replace the target's edges"):
            load_defenses(registry, [PluginUse(name="mc-gpb"), PluginUse(name=other)], "graph", "gnn")


@pytest.mark.parametrize("options", [{"dropped": 1}, {"beta": -1}, {"measure": "mi"}, {"samples": 1}])
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        mc_gpb(**options)
