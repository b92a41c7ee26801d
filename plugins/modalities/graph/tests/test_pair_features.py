"""Numbers of pairs against scipy and formulas, and what a perceptron learns of them."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance as oracle
from scipy.stats import entropy

from mi_graph import pair_features
from mi_graph.graphs import all_pairs, n_pairs, pairs_at, places_of
from mi_graph.links import Learning, Links, draw_others, learned
from mi_graph.measures import auc
from mi_graph.pair_features import PairViews, distances_of, entropies, operators_of
from mi_graph.similarity import DISTANCES
from micore.errors import DataError
from micore.runtime import Random, Runtime

N = 23
ANSWERS = Random(0).normal((N, 5)).softmax(dim=1)
WORDS = (Random(1).uniform((N, 40)) < 0.2).float()
CPU = Runtime.create("cpu")


@pytest.mark.parametrize("values", [ANSWERS, WORDS, Random(2).normal((N, 6))], ids=["answers", "words", "signed"])
def test_distances_of_pairs_are_those_of_scipy_turned_round(values: torch.Tensor) -> None:
    rows, columns = all_pairs(N)[:, Random(3).permutation(n_pairs(N))[:50]]
    found = distances_of(values[rows], values[columns])
    for name, column in zip(DISTANCES, found.T, strict=True):
        kind = getattr(oracle, name)
        expected = [
            kind(values[a].double().numpy(), values[b].double().numpy()) for a, b in zip(rows, columns, strict=True)
        ]
        shift = 1.0 if name in ("cosine", "correlation") else 0.0
        torch.testing.assert_close(found.new_tensor(expected), shift - column, rtol=1e-4, atol=1e-5)


def test_operators_and_entropies_are_their_formulas() -> None:
    one, two = ANSWERS[0].numpy(), ANSWERS[1].numpy()
    expected = numpy.concatenate([(one + two) / 2, one * two, abs(one - two), (one - two) ** 2])
    torch.testing.assert_close(operators_of(ANSWERS[0], ANSWERS[1]), torch.from_numpy(expected))
    torch.testing.assert_close(entropies(ANSWERS)[:, 0].numpy(), entropy(ANSWERS.numpy(), axis=1), rtol=0, atol=1e-4)
    sure = torch.tensor([[1.0, 0.0], [-0.1, 1.1]])  # a defense may answer with noise below 0
    assert entropies(sure).isfinite().all()


def test_all_pairs_by_blocks_have_the_numbers_of_single_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    views = PairViews((ANSWERS, WORDS), (ANSWERS, entropies(ANSWERS)))
    assert views.width == 2 * 8 + 4 * 5 + 4
    alone = views.of(all_pairs(N))
    for elements in (1 << 22, 5 * N * views.width, 1):
        monkeypatch.setattr(pair_features, "ELEMENTS", elements)
        torch.testing.assert_close(torch.cat(list(views.blocks())), alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(views.of(all_pairs(N)), alone)
        total = views.scored(lambda numbers: numbers.sum(dim=1))
        torch.testing.assert_close(total, alone.sum(dim=1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            views.scored(lambda numbers: numbers.sum(dim=1), all_pairs(N)), total, rtol=1e-4, atol=1e-4
        )


def test_distances_that_are_not_defined_are_finite() -> None:
    values = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [torch.inf, 0.0]])
    views = PairViews((values,), (values,))
    assert views.of(all_pairs(4)).isfinite().all()
    assert torch.cat(list(views.blocks())).isfinite().all()


@given(st.integers(2, 40))
@settings(deadline=None)
def test_pairs_stand_where_their_places_say(n: int) -> None:
    assert torch.equal(pairs_at(torch.arange(n_pairs(n)), n), all_pairs(n))


def test_places_of_large_graphs_lose_no_digit() -> None:
    n = 3_000_000
    places = torch.cat([Random(4).integers(n_pairs(n), (1000,)), torch.tensor([0, n - 2, n - 1, n_pairs(n) - 1])])
    assert torch.equal(places_of(pairs_at(places, n), n), places)


def test_others_are_drawn_evenly_from_all_that_are_no_edges() -> None:
    n = 6
    edges = torch.tensor([[0, 0, 2, 4], [1, 3, 3, 5]])
    drawn = places_of(draw_others(n, edges, 11_000, Random(5)), n).bincount(minlength=n_pairs(n))
    assert not drawn[places_of(edges, n)].any()
    free = drawn[drawn > 0]
    assert len(free) == 11
    assert bool(((free - 1000).abs() < 150).all())
    with pytest.raises(DataError, match="all pairs of nodes are edges"):
        draw_others(4, all_pairs(4), 3, Random(0))


def test_a_perceptron_learns_which_pairs_are_joined_and_repeats() -> None:
    """Nodes stand in a plane, near ones are joined; half of the edges are learned from."""
    places = Random(6).uniform((80, 2))
    near = torch.cdist(places, places)[tuple(all_pairs(80))] < 0.15
    edges = all_pairs(80)[:, near]
    known = edges[:, ::2]
    views = PairViews((places,))
    model = learned([Links(views, known)], Learning(), CPU, "test")
    scores = model.scores(views)
    asked = torch.ones(n_pairs(80), dtype=torch.bool).index_fill(0, places_of(known, 80), False)
    assert auc(scores[asked], near[asked]) > 0.95
    assert torch.equal(learned([Links(views, known)], Learning(), CPU, "test").scores(views), scores)
    assert not torch.equal(learned([Links(views, known)], Learning(), CPU, "other").scores(views), scores)
    some = torch.tensor([3, 900, 77])
    torch.testing.assert_close(model.scores(views, all_pairs(80)[:, some]), scores[some], rtol=1e-4, atol=1e-4)


def test_numbers_are_standardised_by_what_is_learned_from_alone() -> None:
    """Nodes without a known edge that lie far away move no statistics but by chance draws of other pairs."""
    known = torch.tensor([[0, 2, 4], [1, 3, 5]])
    model = learned([Links(PairViews((ANSWERS,)), known)], Learning(epochs=1), CPU, "test")
    others = draw_others(N, known, 3, CPU.rng("test", "others", 0))
    numbers = PairViews((ANSWERS,)).of(torch.cat([known, others], dim=1))
    torch.testing.assert_close(model.mean, numbers.mean(dim=0))
    torch.testing.assert_close(model.deviation, numbers.std(dim=0, correction=0))
