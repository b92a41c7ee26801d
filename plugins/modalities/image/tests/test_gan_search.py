"""The search over a GAN's latents: losses, the Gaussian's arithmetic, independence of cases, spending."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mi_image.dcgan import KedCritic
from mi_image.gan_search import GaussianSearch, PointSearch, evidence_loss, reparameterised
from micore.contracts import Case, Reconstruction
from micore.errors import BudgetExceeded
from micore.inputs import InputSpec
from micore.kit.latent_objective import LatentObjective, identity_of, negative_score
from micore.kit.losses import cross_entropy
from micore.runtime import Runtime
from micore.target import Target
from micore.testing.counting import same
from micore.threat import Access, Budget, Ledger, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=4)
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(3)]


class Painter(nn.Module):
    """Latents (B, 3) to pictures of 2 px whose pixels are the latents' sigmoid, and their mean."""

    latent_dim = 3

    def forward(self, latents: Tensor) -> Tensor:
        pixels = torch.cat([latents, latents.mean(dim=1, keepdim=True)], dim=1)
        return pixels.sigmoid().view(-1, 1, 2, 2)


def target(budget: Budget | None = None) -> Target:
    """Class k wants pixel k to be bright and the others dark."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        module[1].weight.copy_(8 * torch.eye(3, 4) - 4)  # type: ignore[operator, union-attr]
        module[1].bias.zero_()  # type: ignore[operator, union-attr]
    spec = InputSpec(shape=(1, 2, 2))
    return Target(
        module, access=Access.WHITE_BOX, adapter=lambda images: images, input_spec=spec,
        classes=["a", "b", "c"], ledger=Ledger(budget=budget or Budget()), runtime=CPU,
    )  # fmt: skip


def objective(attacked: Target, weight: float = 100.0) -> LatentObjective:
    def greyness(images: Tensor) -> Tensor:
        return (images - 0.5).square().mean(dim=(1, 2, 3))

    identity = identity_of(attacked.module, cross_entropy)
    return LatentObjective(generator=Painter(), realism=greyness, identity=identity, identity_weight=weight)


POINTS = PointSearch(latent_dim=3, restarts=2, steps=30, learning_rate=0.002)
GAUSSIANS = GaussianSearch(latent_dim=3, restarts=2, draws=3, steps=30, learning_rate=0.1)


def found(
    search: PointSearch | GaussianSearch, cases: Sequence[Case] = CASES, runtime: Runtime = CPU
) -> list[Reconstruction]:
    attacked = target()
    return list(search.run(objective(attacked), attacked, cases, runtime))


# losses ---------------------------------------------------------------------------------------------------


def test_the_objective_weighs_realism_and_identity() -> None:
    attacked = target()
    latents, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    loss = objective(attacked, weight=7.0)(latents, {"labels": labels}, torch.empty(5, 0))
    images = Painter()(latents).double()
    logits = images.flatten(1)[:, :3] * 8 - 4 * images.flatten(1).sum(dim=1, keepdim=True)
    identity = torch.stack([row.logsumexp(0) - row[label] for row, label in zip(logits, labels, strict=True)])
    expected = (images - 0.5).square().mean(dim=(1, 2, 3)) + 7 * identity
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)


def test_prior_losses_are_minus_the_score_and_minus_the_log_of_realness() -> None:
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(negative_score(lambda x: x.sum(dim=(1, 2, 3)))(images), -images.sum(dim=(1, 2, 3)))  # type: ignore[arg-type]
    critic = KedCritic(4, 8, 1, width=2, n_kernels=2, kernel_dim=2).double().eval()
    losses = evidence_loss(critic)(images.double())
    for image, loss in zip(images.double(), losses.tolist(), strict=True):
        odds = sum(math.exp(value) for value in critic(image[None])[1][0].tolist())
        assert loss == pytest.approx(-math.log(odds / (odds + 1)), rel=1e-5)


@given(
    mean=st.floats(-3, 3), log_variance=st.floats(-4, 4), noise=st.floats(-3, 3),
    box=st.none() | st.floats(0.1, 2),
)  # fmt: skip
def test_a_draw_is_mean_plus_deviation_times_noise(
    mean: float, log_variance: float, noise: float, box: float | None
) -> None:
    values = torch.tensor([[[mean], [log_variance]]], dtype=torch.float64)
    drawn = float(reparameterised(values, torch.tensor([[noise]], dtype=torch.float64), box))
    expected = mean + math.sqrt(math.exp(log_variance)) * noise
    expected = expected if box is None else min(max(expected, -box), box)
    assert drawn == pytest.approx(expected, abs=1e-9)


# searches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", [replace(POINTS, box=None), GAUSSIANS], ids=["points", "gaussians"])
def test_every_case_gets_its_class(search: PointSearch | GaussianSearch) -> None:
    for item in found(search):
        assert item.samples.flatten(1)[:, :3].argmax(dim=1).eq(item.case.label or 0).all()
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert item.history["loss"][-1] < item.history["loss"][0]
        assert item.latents is not None
        torch.testing.assert_close(Painter()(item.latents), item.samples)
        assert len({tuple(row) for row in item.latents.tolist()}) == len(item.latents)  # restarts and draws differ


@pytest.mark.parametrize("search", [POINTS, GAUSSIANS], ids=["points", "gaussians"])
def test_a_case_depends_on_no_other(search: PointSearch | GaussianSearch) -> None:
    together = {item.case.id: item for item in found(search)}
    turned = {item.case.id: item for item in found(search, CASES[::-1])}
    for case in CASES:
        (alone,) = found(search, [case])
        for item in (alone, turned[case.id]):
            assert torch.equal(item.samples, together[case.id].samples)
            assert torch.equal(item.scores, together[case.id].scores)


@pytest.mark.parametrize(
    ("search", "rows", "samples"), [(POINTS, 2, 2), (GAUSSIANS, 2, 6)], ids=["points", "gaussians"]
)
def test_each_step_asks_once_and_each_sample_once_more(
    search: PointSearch | GaussianSearch, rows: int, samples: int
) -> None:
    attacked = target()
    list(search.run(objective(attacked), attacked, CASES, CPU))
    each = Spending(queries=rows * search.steps + samples, gradients=rows * search.steps)
    assert attacked.ledger.cases == {case.id: each for case in CASES}
    assert attacked.ledger.shared == Spending()


def test_points_stay_in_the_box() -> None:
    for item in found(replace(POINTS, learning_rate=1.0, box=0.25)):
        assert item.latents is not None
        assert item.latents.abs().max() <= 0.25


def test_gaussians_start_at_mean_0_and_log_variance_1() -> None:
    search = replace(GAUSSIANS, steps=0, draws=200)
    latents = torch.cat([item.latents for item in found(search) if item.latents is not None])
    assert float(latents.mean()) == pytest.approx(0, abs=0.1)
    assert float(latents.std()) == pytest.approx(math.exp(0.5), rel=0.05)


def test_gaussians_move_as_adam_moves_them() -> None:
    """One Gaussian, against torch's Adam on the same draws."""
    search = replace(GAUSSIANS, restarts=1, draws=1, steps=10)
    attacked, case = target(), CASES[1]
    (item,) = search.run(objective(attacked), attacked, [case], CPU)
    mean, log_variance = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    adam = torch.optim.Adam([mean, log_variance], lr=search.learning_rate)
    noise = CPU.rng("noise", case.id, 0).normal((50, 3))
    for step in range(10):
        latents = mean + (0.5 * log_variance).exp() * noise[step]
        loss = objective(attacked)(latents[None], {"labels": torch.tensor([1])}, torch.empty(1, 0)).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    final = CPU.rng("draws", case.id).normal((1, 1, 3)).view(1, 3)
    expected = mean + (0.5 * log_variance).exp() * final
    assert item.latents is not None
    torch.testing.assert_close(item.latents, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_gaussian_that_has_settled_retires_and_asks_no_more() -> None:
    attacked = target()
    flat = replace(objective(attacked, weight=0.0), realism=lambda images: 0 * images.sum(dim=(1, 2, 3)))
    search = replace(GAUSSIANS, steps=400, patience=25)
    items = list(search.run(flat, attacked, CASES, CPU))
    assert all(item.complete for item in items)
    assert attacked.ledger.total.gradients == len(CASES) * GAUSSIANS.restarts * 26, (
        "it is looked at after 1 and 26 steps"
    )


def test_clipped_gaussians_give_clipped_draws() -> None:
    for item in found(replace(GAUSSIANS, box=0.5)):
        assert item.latents is not None
        assert item.latents.abs().max() <= 0.5


@pytest.mark.parametrize("search", [POINTS, GAUSSIANS], ids=["points", "gaussians"])
def test_a_budget_leaves_what_was_found(search: PointSearch | GaussianSearch) -> None:
    attacked = target(Budget(queries=40))
    items: list[Reconstruction] = []
    with pytest.raises(BudgetExceeded):
        items.extend(search.run(objective(attacked), attacked, CASES, CPU))
    assert items
    assert not any(item.complete for item in items)
    assert attacked.ledger.total.queries <= 40


def test_global_random_numbers_are_not_used() -> None:
    torch.manual_seed(0)
    first = found(GAUSSIANS)
    torch.rand(5)
    second = found(GAUSSIANS)
    assert same([item.samples for item in first], [item.samples for item in second])
