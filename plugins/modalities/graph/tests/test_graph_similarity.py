"""Distances and ranks against scipy, scikit-learn and hand-made examples."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics import average_precision_score, roc_auc_score

from mi_graph.graphs import all_pairs
from mi_graph.measures import Ranking, auc
from mi_graph.similarity import DISTANCES, same, scores_of
from micore.runtime import Random

VALUES = Random(0).uniform((23, 6))


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_those_of_scipy_turned_round(name: str) -> None:
    found = scores_of(VALUES, DISTANCES[name], block=5)
    expected = torch.tensor(pdist(VALUES.numpy(), metric=name)).float()
    shift = 1.0 if name in ("cosine", "correlation") else 0.0
    torch.testing.assert_close(found, shift - expected, rtol=1e-4, atol=1e-4)


def test_some_pairs_have_the_scores_that_they_have_among_all() -> None:
    rows = Random(1).permutation(23 * 11)[:40]
    pairs = all_pairs(23)[:, rows]
    for distance in (DISTANCES["canberra"], DISTANCES["correlation"]):
        torch.testing.assert_close(scores_of(VALUES, distance, pairs), scores_of(VALUES, distance)[rows])
    assert scores_of(torch.tensor([[1.0], [2.0], [1.0]]), same).tolist() == [0, 1, 0]


def test_ranks_are_those_of_scikit_learn_with_ties_and_weights() -> None:
    scores = (Random(2).uniform((400,)) * 20).round()
    is_edge = Random(3).uniform((400,)) < 0.1 + scores / 50
    weights = Random(4).integers(4, (400,)).double()
    ranking = Ranking.of(scores, is_edge)
    arrays = is_edge.numpy(), scores.numpy()
    assert ranking.auc() == pytest.approx(roc_auc_score(*arrays))
    assert ranking.average_precision() == pytest.approx(average_precision_score(*arrays))
    assert ranking.auc(weights) == pytest.approx(roc_auc_score(*arrays, sample_weight=weights.numpy()))
    assert ranking.average_precision(weights) == pytest.approx(
        average_precision_score(*arrays, sample_weight=weights.numpy())
    )


def test_a_cut_through_ties_takes_their_share() -> None:
    scores, is_edge = torch.tensor([3.0, 2, 2, 2, 2, 1]), torch.tensor([True, True, False, False, False, True])
    ranking = Ranking.of(scores, is_edge)
    assert ranking.precision_at(1) == 1
    assert ranking.precision_at(3) == pytest.approx((1 + 2 / 4) / 3)
    assert ranking.precision_at(6) == 0.5


def test_without_edges_or_others_nothing_is_told() -> None:
    assert auc(torch.arange(3.0), torch.zeros(3, dtype=torch.bool)) == 0.5
    assert Ranking.of(torch.arange(3.0), torch.zeros(3, dtype=torch.bool)).average_precision() == 0
