"""Edges from embeddings on the planted graph: what is recovered, spent and refused."""

from __future__ import annotations

import pytest
import torch

from mi_attack_embedding_to_graph.attack import _decoded, _features
from mi_graph.networks import EMBED
from micore.errors import AccessDenied, BudgetExceeded, DataError
from micore.runtime import Random
from micore.testing import Trial
from micore.threat import Access, Spending

N = 60


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("embedding-to-graph")


def test_a_decoder_of_another_graph_reads_the_private_one(toy: Trial) -> None:
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.recovered(toy.run()[1]) > toy.recovered(list(floors["feature-cosine"])) + 0.1


def test_nodes_of_both_graphs_are_asked_about_once(toy: Trial) -> None:
    prepared_on, _ = toy.preparation
    target, _ = toy.run()
    assert prepared_on.ledger.total == target.ledger.total == Spending(queries=N)
    assert target.ledger.used_access == Access.SCORES


def test_the_order_of_a_pair_does_not_matter_and_blocks_agree() -> None:
    one, two = Random(0).normal((5, 3)), Random(1).normal((7, 3))
    assert torch.equal(_features(one[0], two[0]), _features(two[0], one[0]))
    decoder = torch.nn.Linear(6, 1)
    found = _decoded(decoder, one, two)
    assert found.shape == (5, 7)
    torch.testing.assert_close(found[2, 3], decoder(_features(one[2], two[3]))[0])


def test_hidden_features_are_what_goes_into_the_last_layer(toy: Trial) -> None:
    data = toy.dataset
    nodes = data.split("private").take(range(5))
    given = toy.target().ask(EMBED, nodes)
    seen: list[torch.Tensor] = []
    module = toy.lab.module(toy.setting).eval()
    module.convolutions[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr, index]
    module(toy.modality.adapter(data.input)(nodes))
    rows = data.split("private").nodes[:5]  # type: ignore[attr-defined]
    torch.testing.assert_close(given, seen[0][rows])


def test_a_budget_that_does_not_last_is_said(toy: Trial) -> None:
    _, (item,) = toy.run(budget=N - 1)
    assert not item.complete
    with pytest.raises(BudgetExceeded):
        toy.prepare(toy.attack(), toy.target(budget=10))


def test_what_is_missing_is_said(toy: Trial) -> None:
    attack = toy.attack()
    with pytest.raises(DataError, match="edges of a public graph"):
        attack.prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(attack.run(toy.target(), toy.cases, None, toy.runtime))
    with pytest.raises(AccessDenied):
        toy.prepare(attack, toy.target(access=Access.LABEL))
