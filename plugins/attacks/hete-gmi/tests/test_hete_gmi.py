"""HomoGMI and HeteGMI: the proximities, what they recover on the planted graph, spend and refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mi_attack_hete_gmi.attack import first_order, second_order
from mi_graph.cases import known_of
from micore import api
from micore.contracts import Case
from micore.errors import AccessDenied, ModelError, UsageError
from micore.runtime import Random
from micore.testing import Trial
from micore.threat import Access, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("hete-gmi")


EDGES = torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0.5], [0, 0, 0.5, 0]])
"""Node 0 has the neighbours 1 and 2; 2 has half an edge to 3."""


def test_proximities_are_sums_over_edges_and_pairs_of_neighbours() -> None:
    nodes = functional.normalize(Random(0).normal((4, 3)), dim=1)
    alike = nodes @ nodes.T
    expected = alike[0, 1] + alike[0, 2] + 0.5 * alike[2, 3]
    torch.testing.assert_close(first_order(EDGES, nodes), expected)
    of_zero, of_two = 2 + 2 * alike[1, 2], 1.25 + 2 * 0.5 * alike[0, 3]
    degrees = EDGES.sum(dim=1) + 1e-3
    expected = of_zero / degrees[0] + 1 / degrees[1] + of_two / degrees[2] + 0.25 / degrees[3]
    torch.testing.assert_close(second_order(EDGES, nodes), expected)


@pytest.mark.parametrize("decode", ["encoder", "edges"])
def test_classes_and_features_give_edges_away(toy: Trial, decode: str) -> None:
    _, (item,) = toy.run(toy.attack(decode=decode))
    assert toy.recovered([item]) > 0.4
    assert item.history["loss"][0] > item.history["loss"][-1]


def test_it_gives_no_more_than_its_floors(toy: Trial) -> None:
    """What the spec says: the day that this fails, the attack has become better, and the spec is wrong."""
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.spec.below_floors
    assert toy.recovered(toy.run()[1]) < toy.recovered(list(floors["cosine-and-label"])) + 0.02


def test_proximities_make_a_difference(toy: Trial) -> None:
    (near,), (plain,) = (
        toy.run(toy.attack(first_order=weight, second_order=weight, decode="edges"))[1] for weight in (1.0, 0.0)
    )
    assert near.samples != plain.samples


def test_each_step_asks_about_all_nodes_both_ways(toy: Trial) -> None:
    target, _ = toy.run(toy.attack(steps=7, decode="edges"))
    assert target.ledger.total == Spending(queries=60 * 7, gradients=60 * 7)
    target, _ = toy.run(toy.attack(steps=7))
    assert target.ledger.total == Spending(queries=60 * 8, gradients=60 * 7)  # one look more to decode


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    target, (item,) = toy.run(budget=60 * 10)
    assert target.ledger.total.queries == 60 * 10
    assert not item.complete
    assert toy.recovered([item]) > 0


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    known = known_of(toy.cases[0])
    for changed, message in (
        (replace(known, labels=None), "needs the classes"),
        (replace(known, pairs=torch.tensor([[0], [1]])), "holds all pairs"),
    ):
        case = Case(id="graph-0", goal="structure", evidence=changed)
        with pytest.raises(UsageError, match=message):
            list(toy.attack().run(toy.target(), [case], None, toy.runtime))
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.SCORES), toy.cases, None, toy.runtime))


def test_kinds_of_edges_are_searched_each_by_itself(tmp_path: Path) -> None:
    """A target that tells kinds apart: its kinds are known edges by edge, and the search gives more than chance."""
    data = {"nodes": 80, "groups": 3, "kinds": 2, "degree": 4.0, "words": 24, "homophily": 0.9, "kept": 0.8}
    path = tmp_path / "rgcn.safetensors"
    api.train(data="blocks", model="rgcn", data_options=data, output=path, device="cpu", training={"epochs": 60})
    run = api.attack("hete-gmi", model=path, evidence="labels", output=tmp_path / "run", device="cpu")
    values = {item.name: item.value for item in run.measurements() if item.subject == "attack"}
    assert values["auc"] > 0.75
    with pytest.raises(ModelError, match="relaxed edges of 2 kinds"):
        api.attack("graphmi", model=path, evidence="labels", output=tmp_path / "one", device="cpu")
