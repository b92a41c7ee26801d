"""Relaxed edges: projection, smoothness, draws, and descent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mi_graph.graphs import all_pairs, symmetric, values_of_pairs
from mi_graph.relaxed import by_autograd, descend, drawn, projected, roughness, roughness_of_pairs
from micore.errors import BudgetExceeded
from micore.runtime import Random


def relaxed(n: int, seed: int = 0) -> Tensor:
    return symmetric(Random(seed).uniform((n * (n - 1) // 2,)), n)


def test_roughness_is_the_trace_of_the_paper() -> None:
    edges, features = relaxed(9), Random(1).normal((9, 4))
    degrees = edges.sum(dim=1)
    roots = (degrees + 1e-3).rsqrt().diag()
    expected = (features.T @ roots @ (degrees.diag() - edges) @ roots @ features).trace()
    torch.testing.assert_close(roughness(edges, features @ features.T), expected)


def test_roughness_among_some_pairs_is_that_of_the_whole_matrix() -> None:
    features, places = Random(1).normal((9, 4)), Random(2).permutation(36)[:11]
    products, pairs = features @ features.T, all_pairs(9)[:, places]
    values = Random(0).uniform((11,)).requires_grad_(True)
    edges = symmetric(torch.zeros(36).index_copy(0, places, values), 9)
    found = roughness_of_pairs(values, pairs, products[tuple(pairs)], products.diagonal())
    torch.testing.assert_close(found, roughness(edges, products))
    slopes = (torch.autograd.grad(rough, values)[0] for rough in (found, roughness(edges, products)))
    torch.testing.assert_close(*slopes)


def test_a_projection_is_the_nearest_within_the_budget() -> None:
    edges = 2 * relaxed(12) - 0.3
    found = projected(edges.fill_diagonal_(0), 20.0)
    assert float(found.sum()) == pytest.approx(20, abs=1e-3)
    assert bool(((found >= 0) & (found <= 1)).all())
    shift = (edges - found)[(found > 0) & (found < 1)]
    assert float(shift.max() - shift.min()) < 1e-5
    inside = relaxed(5)
    torch.testing.assert_close(projected(inside, 1e3), inside)
    written = torch.full_like(edges, 9.0)
    assert projected(edges, 20.0, out=written) is written
    assert torch.equal(written, found)


def test_descent_finds_the_edges_that_a_loss_wants() -> None:
    wanted = (relaxed(8) > 0.6).float()
    descent = descend(
        by_autograd(lambda edges, _: (edges - wanted).square().sum()), torch.zeros(8, 8), steps=40, step_size=0.1,
        most=float(wanted.sum()),
    )  # fmt: skip
    torch.testing.assert_close(descent.edges, wanted, atol=1e-3, rtol=0)
    assert descent.losses[0] > descent.losses[-1]
    assert descent.problem is None


def test_kinds_of_edges_keep_to_their_own_sums_and_a_budget_keeps_the_last_step() -> None:
    def loss(edges: Tensor, step: int) -> Tensor:
        if step == 3:
            raise BudgetExceeded("spent")
        return -edges.sum()

    start = torch.zeros(2, 6, 6)
    descent = descend(by_autograd(loss), start, steps=9, step_size=0.5, most=[4.0, 8.0])
    assert descent.edges is start  # changed in place
    assert descent.edges.sum(dim=(1, 2)).tolist() == pytest.approx([4, 8], abs=1e-3)
    assert not descent.edges.diagonal(dim1=1, dim2=2).any()
    assert len(descent.losses) == 3
    assert isinstance(descent.problem, BudgetExceeded)


def test_values_of_a_matrix_stand_where_their_pairs_do() -> None:
    matrix = Random(0).uniform((7, 7))
    assert torch.equal(values_of_pairs(matrix), matrix[tuple(all_pairs(7))])
    assert values_of_pairs(matrix[:1, :1]).shape == (0,)


def test_draws_are_in_proportion() -> None:
    found = torch.tensor([0.0, 1.0, 3.0, 0.0])
    draws = torch.stack([drawn(found, 1, Random(seed)) for seed in range(2000)]).mean(dim=0)
    assert draws.tolist() == pytest.approx([0, 0.25, 0.75, 0], abs=0.03)
    assert drawn(found, 2, Random(0)).tolist() == [0, 1, 1, 0]
