"""Projections against a brute-force quadratic programme and their defining properties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from torch import Tensor

from micore.kit.projections import (
    clamp_box,
    from_p_space,
    p_space_box,
    project_l1_ball,
    project_l2_ball,
    to_p_space,
)
from micore.testing.devices import pretend_accelerator

BALLS: dict[int, Callable[..., Tensor]] = {1: project_l1_ball, 2: project_l2_ball}
numbers = st.floats(-10, 10, allow_subnormal=False)
vectors = hnp.arrays(np.float64, (3, 4), elements=numbers)
radii = st.floats(0, 12, allow_subnormal=False)


def _nearest_in_l1_ball(point: np.ndarray, radius: float) -> np.ndarray:
    """Solve a quadratic programme in positive and negative parts; nothing is sorted here."""
    n = len(point)
    result = minimize(
        lambda parts: ((parts[:n] - parts[n:] - point) ** 2).sum(),
        np.zeros(2 * n),
        jac=lambda parts: 2 * np.concatenate([parts[:n] - parts[n:] - point, -(parts[:n] - parts[n:] - point)]),
        bounds=[(0, None)] * (2 * n),
        constraints={
            "type": "ineq",
            "fun": lambda parts: radius - parts.sum(),
            "jac": lambda parts: -np.ones(2 * n),
        },
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert result.status in (0, 8), result.message  # 8: cannot improve any more in float64
    return result.x[:n] - result.x[n:]


@pytest.mark.parametrize("seed", range(8))
def test_l1_projection_solves_the_quadratic_programme(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, centre = rng.normal(size=(4, 5)) * 2, rng.normal(size=5)
    radius = float(rng.uniform(0.2, 4))
    found = project_l1_ball(torch.from_numpy(points), torch.from_numpy(centre), radius).numpy()
    expected = [centre + _nearest_in_l1_ball(point - centre, radius) for point in points]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("norm", BALLS)
@settings(max_examples=60, deadline=None)
@given(values=vectors, centre=vectors, radius=radii)
def test_ball_properties(norm: int, values: np.ndarray, centre: np.ndarray, radius: float) -> None:
    project = BALLS[norm]
    rows, middle = torch.from_numpy(values), torch.from_numpy(centre)
    found = project(rows, middle, radius)
    length = torch.linalg.vector_norm(found - middle, norm, dim=1)
    assert (length <= radius + 1e-9).all()
    inside = torch.linalg.vector_norm(rows - middle, norm, dim=1) <= radius
    assert torch.equal(found[inside], rows[inside])  # bit for bit
    torch.testing.assert_close(length[~inside], torch.full_like(length[~inside], radius), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(project(found, middle, radius), found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", BALLS)
@settings(max_examples=40, deadline=None)
@given(values=vectors, inner=vectors, radius=st.floats(0.1, 12))
def test_projection_is_the_nearest_point(norm: int, values: np.ndarray, inner: np.ndarray, radius: float) -> None:
    """No point of the ball makes an acute angle with the way in: what defines a projection."""
    rows, other = torch.from_numpy(values), torch.from_numpy(inner)
    found = BALLS[norm](rows, torch.zeros(4, dtype=torch.float64), radius)
    other = other * (radius / torch.linalg.vector_norm(other, norm, dim=1, keepdim=True).clamp(min=radius))
    assert (((rows - found) * (other - found)).sum(1) <= 1e-8).all()


@pytest.mark.parametrize("norm", BALLS)
def test_balls_take_any_shape_and_a_radius_per_row(norm: int) -> None:
    values = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)) * 5
    found = BALLS[norm](values, torch.zeros(2, 4), torch.tensor([0.0, 1.0, 1e9]))
    assert found.shape == values.shape
    assert found[0].abs().max() == 0
    assert torch.linalg.vector_norm(found[1].flatten(), norm).item() == pytest.approx(1, rel=1e-5)
    assert torch.equal(found[2], values[2])
    alone = BALLS[norm](values[1:2], torch.zeros(2, 4), 1.0)
    torch.testing.assert_close(alone, found[1:2])


@pytest.mark.parametrize("norm", BALLS)
def test_ball_gradients(norm: int) -> None:
    values = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: BALLS[norm](v, torch.zeros_like(v), 0.7), values)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("radius", [-1.0, float("nan"), torch.ones(2), torch.ones(3, 1)])
def test_a_wrong_radius_is_refused(norm: int, radius: float | Tensor) -> None:
    with pytest.raises(ValueError, match="radius"):
        BALLS[norm](torch.zeros(3, 4), torch.zeros(4), radius)


# --- boxes ----------------------------------------------------------------------------------------


def test_clamping_touches_both_sides() -> None:
    values = torch.tensor([[-3.0, 0.5, 3.0]])
    assert clamp_box(values, -1.0, 1.0).tolist() == [[-1.0, 0.5, 1.0]]
    assert clamp_box(values, torch.tensor([-2.0, 1.0, 0.0]), 2.0).tolist() == [[-2.0, 1.0, 2.0]]
    assert clamp_box(values, torch.tensor(0.0), torch.tensor([4.0, 0.2, 4.0])).tolist() == [
        pytest.approx([0.0, 0.2, 3.0])
    ]


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (float("nan"), 1.0)])
def test_a_box_inside_out_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low must not exceed high"):
        clamp_box(torch.zeros(2), *bounds)


@settings(max_examples=50, deadline=None)
@given(values=vectors, slope=st.sampled_from([5.0, 2.0, 0.5]))
def test_p_space_round_trip(values: np.ndarray, slope: float) -> None:
    latents = torch.from_numpy(values)
    torch.testing.assert_close(from_p_space(to_p_space(latents, slope=slope), slope=slope), latents)
    torch.testing.assert_close(to_p_space(from_p_space(latents, slope=slope), slope=slope), latents)


def test_p_space_undoes_the_last_activation_of_a_mapping_network() -> None:
    before = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(to_p_space(torch.nn.functional.leaky_relu(before, 0.2)), before)


def test_the_p_space_box_holds_most_of_the_prior_and_clamps_both_sides() -> None:
    normal = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0)) + torch.linspace(-1, 1, 6)
    latents = from_p_space(normal)
    box = p_space_box(latents)
    assert box.low.shape == box.high.shape == (6,)
    held = ((latents >= box.low) & (latents <= box.high)).float().mean(0)
    torch.testing.assert_close(held, torch.full((6,), 0.683), atol=0.015, rtol=0)
    clamped = box.clamp(latents)
    assert (clamped == box.low).any(0).all()
    assert (clamped == box.high).any(0).all()
    points, low, high = to_p_space(latents), to_p_space(box.low), to_p_space(box.high)
    torch.testing.assert_close(to_p_space(clamped), clamp_box(points, low, high), rtol=1e-4, atol=1e-5)
    wide = p_space_box(latents, width=2.0)
    assert (wide.low < box.low).all()
    assert (wide.high > box.high).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: p_space_box(torch.zeros(4)),
        lambda: p_space_box(torch.zeros(1, 4)),
        lambda: p_space_box(torch.zeros(3, 4), width=0.0),
        lambda: p_space_box(torch.zeros(3, 4), slope=-1.0),
        lambda: to_p_space(torch.zeros(3), slope=0.0),
        lambda: from_p_space(torch.zeros(3), slope=0.0),
    ],
)
def test_wrong_boxes_are_refused(call) -> None:
    with pytest.raises(ValueError, match=r"positive|spread"):
        call()


def test_projections_stay_on_their_device() -> None:
    with pretend_accelerator() as device:
        values = torch.ones(3, 4, device=device)
        for project in BALLS.values():
            assert project(values, torch.zeros(4, device=device), 0.5).device == device
            assert project(values, torch.zeros(4, device=device), torch.ones(3)).device == device
        assert clamp_box(values, torch.zeros(4), 0.5).device == device
        assert p_space_box(values).clamp(values).device == device
