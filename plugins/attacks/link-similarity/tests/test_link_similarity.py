"""Link stealing on the planted graph: what it recovers, spends and refuses."""

from __future__ import annotations

import pytest
import torch

from mi_attack_link_similarity.attack import LinkSimilarity
from mi_graph.cases import known_of
from mi_graph.similarity import DISTANCES
from micore.errors import AccessDenied
from micore.testing import Trial
from micore.threat import Access, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("link-similarity")


@pytest.mark.parametrize("distance", DISTANCES)
def test_answers_tell_more_than_features(toy: Trial, distance: str) -> None:
    _, found = toy.run(toy.attack(distance=distance))
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.recovered(found) > toy.recovered(list(floors["feature-cosine"])) + 0.1


@pytest.mark.parametrize("score", ["difference", "sum"])
def test_a_reference_and_features_help_or_not_but_beat_chance(toy: Trial, score: str) -> None:
    _, found = toy.run(toy.attack(score=score))
    assert toy.recovered(found) > 0.1
    again, other = (Trial("link-similarity", seed=seed).run(toy.attack(score=score))[1] for seed in (0, 1))
    assert again[0].samples == found[0].samples
    assert (other[0].samples == found[0].samples) == (score == "sum")  # only the reference is drawn


def test_each_node_is_asked_about_once(toy: Trial) -> None:
    target, (item,) = toy.run(toy.attack(batch_size=7))
    assert target.ledger.total == Spending(queries=60)
    assert target.ledger.used_access == Access.SCORES
    graph = item.samples.graphs[0]
    assert graph.n_edges == known_of(toy.cases[0]).n_edges
    whole = toy.run()[1][0].samples.graphs[0]
    torch.testing.assert_close(graph.scores, whole.scores, rtol=1e-4, atol=1e-5)


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    target, (item,) = toy.run(toy.attack(batch_size=10), budget=35)
    assert target.ledger.total.queries == 30
    assert not item.complete
    assert toy.recovered([item]) > 0


def test_labels_alone_are_refused(toy: Trial) -> None:
    attack = toy.attack()
    assert isinstance(attack, LinkSimilarity)
    with pytest.raises(AccessDenied):
        list(attack.run(toy.target(access=Access.LABEL), toy.cases, None, toy.runtime))
