"""Selection is the same under ties, permutations of nothing, and NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from micore.kit.selection import robust_scores, robust_top_k, stable_top_k, top_k_per_class
from micore.testing.devices import pretend_accelerator

tied_scores = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(scores=tied_scores, data=st.data())
def test_each_class_gets_its_best_candidates_lowest_index_first(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    chosen = top_k_per_class(torch.from_numpy(scores), k)
    assert chosen.indices.shape == chosen.scores.shape == (scores.shape[1], k)
    for column in range(scores.shape[1]):
        expected = sorted(range(len(scores)), key=lambda row: (-scores[row, column], row))[:k]
        assert chosen.indices[column].tolist() == expected
        assert chosen.scores[column].tolist() == scores[expected, column].tolist()


def test_all_equal_scores_choose_the_first_candidates() -> None:
    assert stable_top_k(torch.zeros(3, 1000), 4).indices.tolist() == [[0, 1, 2, 3]] * 3


def test_a_class_does_not_depend_on_the_classes_beside_it() -> None:
    scores = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    every = top_k_per_class(scores, 5)
    some = top_k_per_class(scores, 5, classes=torch.tensor([4, 1]))
    assert torch.equal(some.indices, every.indices[[4, 1]])
    assert torch.equal(some.scores, every.scores[[4, 1]])


def test_a_candidate_may_serve_two_classes() -> None:
    assert top_k_per_class(torch.tensor([[0.1, 0.2], [0.9, 0.8]]), 1).indices.tolist() == [[1], [1]]


def test_nan_never_wins_and_infinity_does() -> None:
    scores = torch.tensor([float("nan"), 0.1, float("inf"), 0.2, -float("inf")])
    chosen = stable_top_k(scores, 5)
    assert chosen.indices.tolist() == [2, 3, 1, 0, 4]
    assert not chosen.scores.isnan().any()


def test_whole_numbers_can_be_scores() -> None:
    assert stable_top_k(torch.tensor([3, 5, 5]), 2).indices.tolist() == [1, 2]


def test_a_single_lucky_view_does_not_win() -> None:
    views = torch.tensor([[[1.0], [0.7]], [[0.1], [0.7]], [[0.1], [0.7]]])  # 3 views, 2 candidates, 1 class
    assert stable_top_k(views[0].T, 1).indices.tolist() == [[0]]
    assert robust_top_k(views, 1).indices.tolist() == [[1]]
    assert robust_top_k(views, 1).scores.item() == pytest.approx(0.7)
    assert robust_top_k(views, 1, classes=torch.tensor([0]), quantile=1.0).indices.tolist() == [[0]]


@settings(max_examples=40, deadline=None)
@given(
    views=hnp.arrays(np.float64, (5, 3), elements=st.floats(-9, 9)),
    q=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_quantiles_over_views(views: np.ndarray, q: float) -> None:
    found = robust_scores(torch.from_numpy(views), quantile=q)
    np.testing.assert_array_equal(found.numpy(), np.quantile(views, q, axis=0, method="lower"))
    np.testing.assert_allclose(robust_scores(torch.from_numpy(views)).numpy(), views.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("quantile", [None, 0.0, 0.5])
def test_a_view_that_is_nan_disqualifies(quantile: float | None) -> None:
    views = torch.ones(4, 2, 1)
    views[1, 0] = float("nan")
    assert robust_top_k(views, 1, quantile=quantile).indices.tolist() == [[1]]


def test_half_precision_views_are_averaged_in_float32() -> None:
    assert robust_scores(torch.full((3000, 1), 60.0, dtype=torch.float16)).tolist() == [60.0]


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="k must be between 1"):
        stable_top_k(torch.zeros(3), k)


@pytest.mark.parametrize(
    "call",
    [
        lambda: stable_top_k(torch.tensor(1.0), 1),
        lambda: top_k_per_class(torch.zeros(3), 1),
        lambda: robust_top_k(torch.zeros(3, 2), 1),
        lambda: robust_scores(torch.zeros(3)),
        lambda: robust_scores(torch.zeros(0, 3)),
        lambda: robust_scores(torch.zeros(2, 3, dtype=torch.long)),
        lambda: robust_scores(torch.zeros(2, 3), quantile=1.5),
    ],
)
def test_wrong_shapes_are_refused(call) -> None:
    with pytest.raises(ValueError, match="must"):
        call()


@pytest.mark.parametrize("quantile", [None, 0.5])
def test_selection_stays_on_its_device(quantile: float | None) -> None:
    with pretend_accelerator() as device:
        views = torch.rand(3, 4, 2, device=device)
        chosen = robust_top_k(views, 2, torch.tensor([1], device=device), quantile=quantile)
        assert chosen.indices.device == chosen.scores.device == device
