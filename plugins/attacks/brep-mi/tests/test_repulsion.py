"""The rules and the search of BREP-MI, against plain float64 computations and a loop for a single point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_brep_mi.repulsion import BLOCK, BoundarySearch, Repulsion
from micore.contracts import Case
from micore.errors import BudgetExceeded
from micore.kit.case_rows import make_rows, normal_draws
from micore.kit.search import Rows, RowStatus
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), seed=3)
DIM, POINTS = 6, 16
Labels = Callable[[np.ndarray], int]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# rules ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), radius=st.floats(0.1, 20))
@settings(deadline=None, max_examples=20)
def test_points_lie_on_the_sphere_in_the_drawn_directions(seed: int, radius: float) -> None:
    normals = numbers(2, 5, DIM, seed=seed)
    offsets = Repulsion().sphere(normals, torch.tensor([radius, 1.0]))
    reference = normals.double() / normals.double().norm(dim=2, keepdim=True)
    torch.testing.assert_close(offsets[0].double(), radius * reference[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(offsets[1].double(), reference[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("share", "least"), [(0.75, 29), (0.5, 25), (0.99, 32), (0.0, 17)])
def test_a_sphere_grows_from_so_many_of_32_points_on(share: float, least: int) -> None:
    inside = torch.arange(32)[None] < torch.arange(33)[:, None]
    grows = Repulsion(expand_share=share).expands(inside)
    assert grows.tolist() == [hits >= least for hits in range(33)]


@given(seed=st.integers(0, 1000), outward=st.booleans())
@settings(deadline=None, max_examples=30)
def test_the_step_is_the_published_formula(seed: int, outward: bool) -> None:
    rule = Repulsion(outward_only=outward)
    radii = 0.5 + 12 * torch.rand(3, generator=torch.Generator().manual_seed(seed))
    offsets = rule.sphere(numbers(3, POINTS, DIM, seed=seed), radii)
    inside = numbers(3, POINTS, seed=seed + 1) > 0
    latents = numbers(3, DIM, seed=seed + 2)
    moved = rule.propose(latents, rule.direction(offsets, inside, 1.3 * radii), radii)
    for row in range(3):
        radius, total = float(radii[row]), np.zeros(DIM)
        for point in range(POINTS):
            sign = 1.0 if inside[row, point] else -1.0
            total += ((sign - 1) / 2 if outward else sign) * offsets[row, point].double().numpy()
        step = min(radius / 3, 3.0) * (total / POINTS) / (1.3 * radius)
        expected = np.clip(latents[row].double().numpy() + step, -1.5, 1.5)
        np.testing.assert_allclose(moved[row].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_wall_is_repelled_straight() -> None:
    """Points beyond a wall at the right are outside: their mean points to the right, the step to the left."""
    rule = Repulsion()
    offsets = rule.sphere(numbers(1, 4000, DIM), torch.tensor([2.0]))
    direction = rule.direction(offsets, offsets[:, :, 0] < 0.5, torch.tensor([2.0]))[0]
    assert direction[0] < 0
    assert direction[1:].abs().max() < 0.1 * direction[0].abs()
    assert rule.direction(offsets, torch.ones(1, 4000, dtype=torch.bool), torch.tensor([2.0])).abs().max() == 0


# search -----------------------------------------------------------------------------------------------------


class Balls:
    """A target whose class k is a ball of radius ``size`` around a centre of its own; 99 elsewhere."""

    def __init__(self, n: int, size: float = 2.5, spread: float = 1.0) -> None:
        self.centres, self.size = spread * numbers(n, DIM, seed=8).clamp(-1, 1), size
        self.asked: dict[str, int] = {}

    def __call__(self, latents: Tensor, owners: Sequence[str]) -> Tensor:
        for owner in owners:
            self.asked[owner] = self.asked.get(owner, 0) + 1
        distances = torch.cdist(latents.double(), self.centres.double())
        nearest = distances.argmin(dim=1)
        return torch.where(distances.amin(dim=1) < self.size, nearest, 99)

    def of(self, point: np.ndarray) -> int:
        return int(self(torch.from_numpy(point)[None], ())[0])


def rows_of(starts: Tensor, labels: Sequence[int], points: int = POINTS) -> Rows:
    cases = [Case(id=f"class-{label}", goal="class", label=label) for label in labels]
    return make_rows(cases, starts, normal_draws(cases, starts.shape[1], points * DIM, CPU, "directions"))


def by_hand(
    labels: Labels, start: Tensor, wanted: int, normals: Sequence[np.ndarray], patience: int, rounds: int
) -> tuple[np.ndarray, float, int]:
    """Follow the authors' loop for a single point: reported point, radius that the class filled, rounds."""
    point, radius = start.double().numpy(), 2.0
    report, filled, stalled, done = point, 0.0, 0, 0
    while stalled < patience and done < rounds:
        directions = normals[done] / np.linalg.norm(normals[done], axis=1, keepdims=True)
        step, before = min(radius / 3, 3.0), radius
        votes = np.array([1.0 if labels(point + radius * u) == wanted else -1.0 for u in directions])
        grows = votes.sum() > 0.75 * len(votes)
        if grows:
            radius, stalled = 1.3 * radius, 0
        gradient = np.mean(((votes - 1) / 2)[:, None] * before * directions, axis=0) / radius
        candidate = np.clip(point + step * gradient, -1.5, 1.5)
        done += 1
        if labels(candidate) != wanted:
            continue
        point = candidate
        if grows:
            report, filled = point, before
        else:
            stalled += 1
    return report, filled, done


def test_all_rows_together_move_as_the_loop_for_one_point() -> None:
    target, rounds, patience = Balls(3), 30, 6
    starts = target.centres[:, None] + 0.5 * numbers(3, 2, DIM, seed=4)
    starts = starts.clamp(-1.5, 1.5)
    rows = rows_of(starts, [0, 1, 2])
    search = BoundarySearch(rule=Repulsion(), points=POINTS, rounds=rounds, patience=patience, max_rejected=rounds)
    found = search.run(target, rows, CPU)
    assert found.complete
    for row in range(6):
        label = row // 2
        stream = CPU.rng("directions", f"class-{label}", row % 2)
        blocks = [stream.normal((BLOCK, POINTS * DIM)).double() for _ in range(math.ceil(rounds / BLOCK))]
        normals = torch.cat(blocks).unflatten(1, (POINTS, DIM)).numpy()
        point, filled, done = by_hand(target.of, starts[label, row % 2], label, list(normals), patience, rounds)
        np.testing.assert_allclose(found.values[row].numpy(), point, atol=1e-4)
        assert float(-found.losses[row]) == pytest.approx(filled, rel=1e-5)
        assert int(found.steps[row]) == done
    assert len({int(steps) for steps in found.steps}) > 1  # they end at different rounds


def test_a_round_costs_a_sphere_and_a_proposal_and_those_that_are_done_cost_nothing() -> None:
    target = Balls(3)
    rows = rows_of(target.centres[:, None], [0, 1, 2])
    search = BoundarySearch(rule=Repulsion(), points=POINTS, rounds=50, patience=3, max_rejected=4)
    found = search.run(target, rows, CPU)
    assert target.asked == {f"class-{k}": (POINTS + 1) * int(found.steps[k]) for k in range(3)}


def test_the_search_ends_deeper_in_the_class_than_it_began() -> None:
    target = Balls(1, size=2.0, spread=0.5)
    edges = target.centres + 1.7 * torch.nn.functional.normalize(numbers(1, 4, DIM, seed=5), dim=2)
    starts = edges.clamp(-1.5, 1.5)
    search = BoundarySearch(
        rule=Repulsion(radius=0.5), points=32, rounds=200, patience=60, max_rejected=50, reported="last"
    )
    found = search.run(target, rows_of(starts, [0], points=32), CPU)
    before = (starts[0] - target.centres).norm(dim=1)
    after = (found.values - target.centres).norm(dim=1)
    assert (after < 0.6 * before).all(), (before, after)
    assert (-found.losses > 0.5).all()
    assert found.values.abs().max() <= 1.5


def test_proposals_that_always_leave_the_class_end_the_search() -> None:
    def never(latents: Tensor, owners: Sequence[str]) -> Tensor:
        return torch.full((len(latents),), 99)

    starts = numbers(2, 1, DIM)
    search = BoundarySearch(rule=Repulsion(), points=POINTS, rounds=1000, patience=1000, max_rejected=7)
    found = search.run(never, rows_of(starts, [0, 1]), CPU)
    assert found.steps.tolist() == [7, 7]
    assert set(found.statuses) == {RowStatus.DONE}
    torch.testing.assert_close(found.values, starts[:, 0])
    assert found.losses.abs().max() == 0


def test_a_budget_keeps_what_was_reported_even_before_the_first_round() -> None:
    def spent(latents: Tensor, owners: Sequence[str]) -> Tensor:
        raise BudgetExceeded("spent")

    starts = numbers(2, 1, DIM)
    search = BoundarySearch(rule=Repulsion(), points=POINTS, rounds=9, patience=9, max_rejected=9)
    found = search.run(spent, rows_of(starts, [0, 1]), CPU)
    assert not found.complete
    assert set(found.statuses) == {RowStatus.STOPPED}
    assert torch.equal(found.values, starts[:, 0])


def test_the_sphere_stays_grown_and_the_report_stays_when_the_proposal_is_rejected() -> None:
    """The class fills each sphere, but every proposal is answered with another class."""
    calls = []

    def answers(latents: Tensor, owners: Sequence[str]) -> Tensor:
        calls.append(len(latents))
        return torch.full((len(latents),), 0 if len(latents) == POINTS else 1)

    starts = numbers(1, 1, DIM)
    search = BoundarySearch(rule=Repulsion(), points=POINTS, rounds=26, patience=50, max_rejected=50)
    found = search.run(answers, rows_of(starts, [0]), CPU)
    assert torch.equal(found.values, starts[:, 0])
    assert found.losses.tolist() == [0.0]
    assert found.history[0].tolist() == pytest.approx([2.0, 2.0 * 1.3**25], rel=1e-4)
    assert calls == [POINTS, 1] * 26
