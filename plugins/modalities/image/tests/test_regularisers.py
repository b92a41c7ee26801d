"""Penalties on pixels against plain loops in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mi_image.regularisers import mean_l2_norm, total_variation_l1, total_variation_l2

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
PENALTIES = (total_variation_l1, total_variation_l2, mean_l2_norm)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neighbour_differences(grid: np.ndarray) -> list[list[float]]:
    """Walk over all pixels (..., H, W) of one row, for each direction."""
    planes = grid.reshape(-1, *grid.shape[-2:])
    height, width = planes.shape[1:]
    return [
        [
            float(plane[i + down, j + right] - plane[i, j])
            for plane in planes
            for i in range(height)
            for j in range(width)
            if i + down < height and 0 <= j + right < width
        ]
        for down, right in STEPS
    ]


@pytest.mark.parametrize("shape", [(3, 1, 4, 5), (2, 3, 3, 6, 4)], ids=["images", "groups"])
def test_total_variation_equals_a_walk_over_the_pixels(shape: tuple[int, ...]) -> None:
    batch = images(*shape)
    walked = [neighbour_differences(row.numpy()) for row in batch]
    l1 = [sum(float(np.mean(np.abs(part))) for part in row) for row in walked]
    l2 = [sum(float(np.linalg.norm(part)) for part in row) for row in walked]
    torch.testing.assert_close(total_variation_l1(batch), torch.tensor(l1, dtype=torch.float64))
    torch.testing.assert_close(total_variation_l2(batch), torch.tensor(l2, dtype=torch.float64))


def test_the_norm_is_that_of_each_image() -> None:
    group = images(2, 3, 1, 4, 4)
    each = [[np.linalg.norm(image.numpy()) for image in row] for row in group]
    torch.testing.assert_close(mean_l2_norm(group), torch.tensor(np.mean(each, axis=1)))
    torch.testing.assert_close(mean_l2_norm(group[0]), torch.tensor(each[0]))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_flat_black_costs_nothing_and_has_a_gradient(penalty: Callable[[Tensor], Tensor]) -> None:
    black = torch.zeros(2, 1, 4, 4, requires_grad=True)
    values = penalty(black)
    assert values.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(values.sum(), black)
    assert torch.equal(gradient, torch.zeros_like(black))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradients_are_right_and_rows_independent(penalty: Callable[[Tensor], Tensor]) -> None:
    batch = images(2, 1, 4, 4, seed=3).requires_grad_(True)
    assert torch.autograd.gradcheck(penalty, (batch,))
    assert torch.equal(penalty(batch)[1:], penalty(batch[1:]))


def test_half_precision_does_not_overflow() -> None:
    bright = 200 * images(1, 4, 3, 64, 64).half()
    for penalty in PENALTIES:
        assert torch.isfinite(penalty(bright)).all()
        torch.testing.assert_close(penalty(bright), penalty(bright.float()))
