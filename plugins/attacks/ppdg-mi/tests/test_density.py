"""The losses of tuning, against formulas in float64."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mi_attack_ppdg_mi.density import BANDWIDTHS, mean_discrepancy, pyramid, squared_distances, transport
from mi_attack_ppdg_mi.tuning import Tuning
from micore.runtime import Random


def points(seed: int, n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_discrepancy_equals_the_sum_over_pairs() -> None:
    one, other = points(0, 4), points(1, 5)
    rows = torch.cat([one, other])
    pairs = [(a - b).square().sum().item() for a in rows for b in rows]
    width = sum(pairs) / (9 * 8)

    def kernel(a: Tensor, b: Tensor) -> float:
        distance = (a - b).square().sum().item()
        return sum(math.exp(-distance / (width * factor)) for factor in BANDWIDTHS) / len(BANDWIDTHS)

    within = sum(kernel(a, b) for a in one for b in one) / 16 + sum(kernel(a, b) for a in other for b in other) / 25
    across = sum(kernel(a, b) for a in one for b in other) / 20
    assert math.isclose(mean_discrepancy(one, other).item(), within - 2 * across, rel_tol=1e-9)


def test_transport_equals_the_sum_over_pairs() -> None:
    one, other = points(0, 3), points(1, 4)
    costs = [[(a - b).square().sum().item() for b in other] for a in one]
    scale = sum(map(sum, costs)) / 12
    there = 0.0
    for row in costs:
        weights = [math.exp(-cost / scale) for cost in row]
        there += sum(w * c for w, c in zip(weights, row, strict=True)) / sum(weights) / 3
    back = 0.0
    for column in zip(*costs, strict=True):
        weights = [math.exp(-cost / scale) for cost in column]
        back += sum(w * c for w, c in zip(weights, column, strict=True)) / sum(weights) / 4
    assert math.isclose(transport(one, other).item(), (there + back) / 2, rel_tol=1e-9)


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_discrepancy_is_never_negative_and_zero_for_equal_sets(seed: int, n: int, m: int) -> None:
    one, other = points(seed, n), points(seed + 1, m)
    assert mean_discrepancy(one, other).item() >= -1e-12
    assert abs(mean_discrepancy(one, one).item()) < 1e-12


def test_distances_are_squared_euclidean() -> None:
    one, other = points(0, 3), points(1, 4)
    torch.testing.assert_close(squared_distances(one, other), torch.cdist(one, other).square())


def test_pyramid_weighs_every_scale_alike() -> None:
    """A shift of all pixels by 0.1 costs 0.01 at each of three scales."""
    images = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    cost = (pyramid(images + 0.1) - pyramid(images)).square().sum().item()
    assert math.isclose(cost, 3 * 0.01, rel_tol=1e-9)


class Painter(nn.Module):
    """A linear generator with batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.paint = nn.BatchNorm1d(4), nn.Linear(4, 16)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return torch.sigmoid(self.paint(self.norm(latents))).view(-1, 1, 4, 4)


def test_tuning_moves_the_neighbourhood_towards_the_images_and_leaves_the_generator() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Painter().eval().requires_grad_(False)
    latents, wanted = Random(0).normal((3, 4)), Random(1).uniform((3, 1, 4, 4))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    near = latents.repeat_interleave(4, dim=0) + 0.1 * Random(3).normal((12, 4))
    labels = torch.zeros(12, dtype=torch.int64)
    for objective in ("points", "transport", "mmd"):
        tuning = Tuning(objective=objective, steps=60, learning_rate=1e-2, radius=0.1)  # type: ignore[arg-type]
        tuned = tuning.tune(generator, latents, wanted, 0, Random(2))
        losses = [tuning._loss(pyramid(network(near, labels)), pyramid(wanted)) for network in (generator, tuned)]
        assert losses[1] < losses[0]
        assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
        assert torch.equal(tuned.norm.running_mean, generator.norm.running_mean)
        assert not any(parameter.requires_grad for parameter in tuned.parameters())
