"""Row optimisers against torch's own and against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from micore.kit.row_optimizers import NesterovMomentum, RowAdam, RowAdamax, RowOptimizer, ramp_up_and_down

CURVATURE = torch.tensor([[1.0, 5.0, 0.2], [2.0, 0.5, 3.0]], dtype=torch.float64)
START = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], dtype=torch.float64)


def descend(optimizer: RowOptimizer, values: Tensor, curvature: Tensor, steps: int) -> Tensor:
    state = optimizer.start(values)
    for step in range(1, steps + 1):
        ages = torch.full((len(values),), float(step))
        values, state = optimizer.step(values, curvature * values, state, ages.to(values))
    return values


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.1, 0.1), (0.0, 0.9)])
def test_adam_equals_torch(betas: tuple[float, float]) -> None:
    values = START.clone().requires_grad_(True)
    adam = torch.optim.Adam([values], 0.1, betas=betas)
    for _ in range(30):
        (values.grad,) = torch.autograd.grad((CURVATURE * values.square()).sum() / 2, values)
        adam.step()
    found = descend(RowAdam(learning_rate=0.1, betas=betas), START, CURVATURE, 30)
    torch.testing.assert_close(found, values.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
def test_adamax_equals_torch(betas: tuple[float, float]) -> None:
    values = START.clone().requires_grad_(True)
    adamax = torch.optim.Adamax([values], 0.1, betas=betas)
    for _ in range(30):
        (values.grad,) = torch.autograd.grad((CURVATURE * values.square()).sum() / 2, values)
        adamax.step()
    found = descend(RowAdamax(learning_rate=0.1, betas=betas), START, CURVATURE, 30)
    torch.testing.assert_close(found, values.detach(), rtol=1e-9, atol=1e-9)


def test_gmi_equals_a_loop_on_quadratics() -> None:
    """Number by number: v' = m v - a g; z += (1 + m) v' - m v."""
    for row in range(2):
        for column in range(3):
            z, v, curvature = (float(t[row, column]) for t in (START, torch.zeros_like(START), CURVATURE))
            for _ in range(25):
                before, v = v, 0.9 * v - 0.02 * curvature * z
                z = z - 0.9 * before + (1 + 0.9) * v
            found = descend(NesterovMomentum(learning_rate=0.02), START, CURVATURE, 25)
            assert math.isclose(float(found[row, column]), z, rel_tol=1e-9)


@pytest.mark.parametrize(
    "optimizer",
    [RowAdam(learning_rate=0.1), RowAdamax(learning_rate=0.1), NesterovMomentum(learning_rate=0.02)],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_rows_at_different_steps_do_not_meet(optimizer: RowOptimizer) -> None:
    early, late = (descend(optimizer, START[row : row + 1], CURVATURE[row : row + 1], 5 + 3 * row) for row in (0, 1))
    values, state = START.clone(), optimizer.start(START)
    ages = torch.zeros(2, dtype=torch.float64)
    for step in range(8):
        moves = torch.tensor([step < 5, True])
        ages = torch.where(moves, ages + 1, ages)
        moved, after = optimizer.step(values, CURVATURE * values, state, ages.clamp(min=1))
        values = torch.where(moves[:, None], moved, values)
        state = tuple(torch.where(moves[:, None], new, old) for new, old in zip(after, state, strict=True))
    torch.testing.assert_close(values, torch.cat([early, late]), rtol=1e-12, atol=1e-12)


def test_schedule_rises_stays_and_falls() -> None:
    factors = ramp_up_and_down(1000)(torch.tensor([1.0, 25.0, 50.0, 500.0, 751.0, 1000.0], dtype=torch.float64))
    assert factors[0] == pytest.approx(1 / 50)
    assert factors[1] == pytest.approx(0.5)
    assert factors[2:5].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert 0 < factors[5] < 1e-4
    middle = float(ramp_up_and_down(1000)(torch.tensor([876.0], dtype=torch.float64)))
    assert middle == pytest.approx(0.5 - 0.5 * math.cos(math.pi / 2))


def test_schedule_scales_the_step_of_each_row() -> None:
    plain, half = RowAdam(learning_rate=0.1), RowAdam(learning_rate=0.1, schedule=lambda steps: steps * 0 + 0.5)
    start = START.clone()
    moved, halved = (descend(optimizer, start, CURVATURE, 1) for optimizer in (plain, half))
    torch.testing.assert_close((moved - start) / 2, halved - start)


def test_a_schedule_needs_steps() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        ramp_up_and_down(0)
