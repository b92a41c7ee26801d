"""What the target says, the search between prior and target, and the polish, against formulas and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mi_attack_diff_mi.denoiser import Denoiser, DenoiserShape, build_denoiser
from mi_attack_diff_mi.guidance import Guidance, Views, class_profile, seen_losses
from mi_attack_diff_mi.polish import Polish
from mi_attack_diff_mi.reconstruction import Reconstructor, _Tile, course
from mi_image.modality import ImageModality
from micore.inputs import InputSpec
from micore.kit.row_optimizers import RowAdamax
from micore.kit.search import RowStatus
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.threat import Access, Budget, Ledger, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=4)
SHAPE = DenoiserShape(
    channels=1, height=8, width=8, n_classes=4, base=4, multipliers=(1,), res_blocks=1, attention=(), head_width=4
)


class SmallNet(nn.Module):
    """Features by one layer, logits by another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.inner(images))
        return logits


def target(budget: Budget | None = None) -> Target:
    spec = InputSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
    with CPU.seeded("net"):
        module = SmallNet()
    return Target(
        module, access=Access.WHITE_BOX, adapter=ImageModality().adapter(spec), input_spec=spec, classes="abcd",
        ledger=Ledger(budget=budget or Budget()), runtime=CPU,
    )  # fmt: skip


def pictures(n: int, name: str = "pictures") -> Tensor:
    return CPU.rng(name).uniform((n, 1, 8, 8))


# what the target says -------------------------------------------------------------------------------------


def test_profile_holds_the_surest_images_and_their_mean_features() -> None:
    attacked, images = target(), pictures(300)
    profile = class_profile(attacked.module, images, 7, CPU)
    assert attacked.ledger.shared == Spending(queries=300)
    network = attacked.module.inner
    scores = network(2 * images - 1).softmax(dim=1)
    features = network.inner(2 * images - 1)
    for label in range(4):
        order = scores[:, label].argsort(descending=True)[:7]
        assert set(profile.members[label].tolist()) == set(order.tolist())
        torch.testing.assert_close(profile.features[label], features[order].mean(dim=0))


def test_identity_loss_is_margin_and_distance_to_the_features() -> None:
    attacked, images, labels = target(), pictures(5), torch.tensor([0, 3, 1, 2, 3])
    references = CPU.rng("references").normal((4, 8))
    guidance = Guidance(module=attacked.module, features=references, k=2, weight=0.7)
    losses, logits = guidance.losses(images, labels)
    network = attacked.module.inner
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    inputs = (2 * images.double() - 1).flatten(1).numpy()
    inner = np.tanh(inputs @ weights["inner.1.weight"].T + weights["inner.1.bias"])
    raw = inner @ weights["head.weight"].T + weights["head.bias"]
    np.testing.assert_allclose(logits.detach().numpy(), raw, rtol=1e-4, atol=1e-5)
    for row, label in enumerate(labels.tolist()):
        rivals = sorted(np.delete(raw[row], label))[-2:]
        distance = np.mean((inner[row] - references[label].double().numpy()) ** 2)
        expected = np.mean(rivals) - raw[row, label] + 0.7 * distance
        assert losses[row].item() == pytest.approx(expected, rel=1e-4)


VIEWS = Views(flip=0.5, brightness=0.2, blur=3 / 64)


def numbers(*rows: dict[int, float]) -> Tensor:
    """Numbers that change nothing, but for some of them."""
    drawn = torch.tensor([0.5, 0.5, 0.5, 0.99, 0.5, 0.5, 0.5, 0.99, 0.99]).repeat(len(rows), 1)
    for row, changes in enumerate(rows):
        for index, value in changes.items():
            drawn[row, index] = value
    return drawn


def test_views_mirror_brighten_and_blur() -> None:
    images = pictures(1).repeat(4, 1, 1, 1)
    seen = VIEWS.apply(images, numbers({}, {3: 0.1}, {5: 1.0, 7: 0.1}, {8: 0.1}))
    assert VIEWS.n_numbers == 9
    torch.testing.assert_close(seen[0], images[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[1], images[0].flip(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[2], (1.2 * images[0]).clamp(0, 1), atol=1e-6, rtol=0)
    assert seen[3].var() < 0.9 * images[0].var()
    assert seen[3].mean() == pytest.approx(images[0].mean().item(), abs=0.02)


def test_blur_is_a_gaussian_of_the_published_width() -> None:
    """At 64 px: 7 px wide, with a deviation of 3."""
    point = torch.zeros(1, 1, 64, 64)
    point[0, 0, 32, 32] = 1
    seen = Views(flip=0, brightness=0, blur=3 / 64).apply(point, numbers({8: 0.1}))[0, 0]
    assert int((seen > 0).sum()) == 49
    weights = np.exp(-(np.arange(-3, 4) ** 2) / 18)
    weights /= weights.sum()
    np.testing.assert_allclose(seen[29:36, 29:36].numpy(), np.outer(weights, weights), rtol=1e-4)


def test_views_are_averaged_and_each_row_has_its_own() -> None:
    attacked, images, labels = target(), pictures(2), torch.tensor([0, 3])
    guidance = Guidance(module=attacked.module, features=torch.zeros(4, 8), k=20, weight=1.0)
    first, second = numbers({3: 0.1}, {}), numbers({}, {8: 0.1})
    together = seen_losses(guidance, VIEWS, images, labels, torch.cat([first, second], dim=1))
    apart = [guidance.losses(VIEWS.apply(images, drawn), labels)[0] for drawn in (first, second)]
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2)


# the search -----------------------------------------------------------------------------------------------


def test_course_of_times_is_the_published_one() -> None:
    assert course(0, 30) == 1000
    for step in range(30):
        left = 30 - step
        wave = math.cos(3 * step / (10 * math.pi))
        assert course(step, 30) == pytest.approx((left / 1.5 + left / 3 * wave) / 30 * 800 + 200)
    assert course(10, 20) == pytest.approx(course(15, 30))
    assert 200 < course(29, 30) < 250


class Linear(nn.Module):
    """Predicts a multiple of the noisy image, another one for each label."""

    factors = torch.tensor([0.3, 0.5, 0.7, 0.9, 0.2])

    def forward(self, noisy: Tensor, indices: Tensor, labels: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (self.factors[labels].view(-1, 1, 1, 1) * noisy,)


def denoiser(linear: bool = False) -> Denoiser:
    made = build_denoiser(SHAPE, CPU).eval().requires_grad_(False)
    if linear:
        made.network = Linear()  # type: ignore[assignment]
    return made


def quadratic(values: Tensor, labels: Tensor, drawn: Tensor) -> Tensor:
    """Pull pixels to one grey per label."""
    return (values - labels.view(-1, 1, 1, 1) / 4).square().flatten(1).sum(dim=1)


def plan(losses: Callable[..., Tensor] = quadratic, **changes: object) -> Reconstructor:
    usual = Reconstructor(
        denoiser=denoiser(linear=True), losses=losses, n_numbers=2, steps=3, optimizer=RowAdamax(learning_rate=0.1),
        scale=3.0, clip=1.25, full_gradient=True, refine_time=0, refine_grid=100,
    )  # fmt: skip
    return replace(usual, **changes)


def streams(n: int) -> list[Random]:
    return [CPU.rng("row", row) for row in range(n)]


def test_prior_gradient_with_and_without_the_networks_own() -> None:
    """For eps = f x_t: 2 / n (f x_t - e) f sqrt(a), and without the network's gradient 2 / n (f x_t - e) sqrt(a)."""
    labels, times = torch.tensor([0, 1, 2, 3]), torch.tensor([10, 300, 600, 900])
    drawn = CPU.rng("noise").normal((4, 1, 8, 8))
    full, detached = (_Tile(plan(full_gradient=way), labels, streams(4), CPU) for way in (True, False))
    factor = (3 * Linear.factors[labels] - 2 * Linear.factors[4]).double()
    kept = full.plan.denoiser.signal[times].double()
    noisy = full.plan.denoiser.diffuse(full.values, times, drawn).double()
    error = factor.view(-1, 1, 1, 1) * noisy - drawn
    outer = 2 / 64 * kept.sqrt().view(-1, 1, 1, 1) * error
    with torch.enable_grad():
        found = full._prior_gradient(times, drawn)
    torch.testing.assert_close(found.double(), outer * factor.view(-1, 1, 1, 1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(detached._prior_gradient(times, drawn).double(), outer, rtol=1e-4, atol=1e-6)


def test_a_step_equals_a_loop_in_double() -> None:
    """Two Adamax steps per iteration with shared moments; the second gradient is clipped by the first one's norm."""
    searching = plan(clip=0.5)
    tile = _Tile(searching, torch.tensor([3]), streams(1), CPU)
    stream, values = streams(1)[0], tile.values[0].double()
    assert torch.equal(stream.normal((1, 8, 8)), tile.values[0])
    moment, largest, norm = torch.zeros_like(values), torch.zeros_like(values), 0.0
    factor, kept = 3 * 0.9 - 2 * 0.2, searching.denoiser.signal.double()
    for step in range(3):
        drawn = stream.normal((1, 8, 8)).double()
        time = max(1, min(1000, int(course(step, 3)) + int(stream.integers(101, ())) - 50))
        stream.uniform((2,))
        noisy = kept[time].sqrt() * values + (1 - kept[time]).sqrt() * drawn
        gradient = 2 / 64 * kept[time].sqrt() * factor * (factor * noisy - drawn)
        norm = 0.5 * norm + 0.5 * float(gradient.norm())
        for second in (False, True):
            if second:
                inside = ((values >= -1) & (values <= 1)).double()
                gradient = 2 * ((values + 1) / 2 - 0.75) * 0.5 * inside
                gradient = gradient * min(1.0, 0.5 * norm / float(gradient.norm()))
            moment = 0.9 * moment + 0.1 * gradient
            largest = torch.maximum(0.999 * largest, gradient.abs() + 1e-8)
            values = values - 0.1 / (1 - 0.9 ** (2 * step + 1 + second)) * moment / largest
        with torch.enable_grad():
            tile._step()
        torch.testing.assert_close(tile.values[0].double(), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("refine_time", [0, 100])
def test_a_row_depends_on_no_other(refine_time: int) -> None:
    searching = plan(denoiser=denoiser(), refine_time=refine_time)
    labels = torch.tensor([0, 1, 2, 3, 1, 2])
    owners = [str(row) for row in range(6)]
    whole = searching.run(labels, owners, streams(6), Ledger(), CPU)
    alone = searching.run(labels[4:], owners[4:], streams(6)[4:], Ledger(), CPU)
    assert torch.equal(whole.values[4:], alone.values)
    assert torch.equal(whole.history[4:], alone.history)
    assert set(whole.statuses) == {RowStatus.DONE}
    assert 0 <= whole.values.min() <= whole.values.max() <= 1


def test_rows_that_leave_the_finite_numbers_fail_alone() -> None:
    def broken(values: Tensor, labels: Tensor, drawn: Tensor) -> Tensor:
        return quadratic(values, labels, drawn) * torch.where(labels == 2, torch.nan, 1.0)

    found = plan(broken).run(torch.tensor([0, 2, 1]), "abc", streams(3), Ledger(), CPU)
    assert [status.value for status in found.statuses] == ["done", "failed", "done"]


def guided(attacked: Target) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda values, labels, drawn: attacked.module(values).gather(1, labels[:, None])[:, 0]


def test_a_budget_ends_the_search_between_steps() -> None:
    """Six rows in tiles of 4 and 2; of 3 x 4 + 3 x 2 queries there are 15: the second tile takes one step."""
    attacked = target(Budget(queries=15))
    found = plan(guided(attacked)).run(torch.tensor([0, 1, 2, 3, 1, 2]), "abcdef", streams(6), attacked.ledger, CPU)
    assert [status.value for status in found.statuses] == ["done"] * 4 + ["stopped"] * 2
    assert found.steps.tolist() == [3, 3, 3, 3, 1, 1]
    assert not found.complete
    assert attacked.ledger.total == Spending(queries=14, gradients=14)
    assert attacked.ledger.cases["f"] == Spending(queries=1, gradients=1)


def test_rows_without_a_step_are_still_waiting() -> None:
    attacked = target(Budget(queries=1))
    found = plan(guided(attacked)).run(torch.tensor([0, 1]), "ab", streams(2), attacked.ledger, CPU)
    assert set(found.statuses) == {RowStatus.WAITING}


# polish ---------------------------------------------------------------------------------------------------

POLISH = Polish(radius=0.5, step=0.1, steps=10)


def test_polish_makes_the_target_surer_within_its_ball() -> None:
    attacked, images, labels = target(), pictures(6), torch.tensor([0, 1, 2, 3, 0, 1])
    owners = [str(row) for row in range(6)]
    polished, enough = POLISH.run(attacked.module, images, labels, owners, streams(6), attacked.ledger, CPU)
    assert enough
    assert (polished - images).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
    assert 0 <= polished.min() <= polished.max() <= 1
    before, after = (target().scores(values).gather(1, labels[:, None])[:, 0] for values in (images, polished))
    assert (after > before).all()
    assert attacked.ledger.cases == {owner: Spending(queries=11, gradients=10) for owner in owners}


def test_polish_of_a_row_depends_on_no_other() -> None:
    images, labels = pictures(6), torch.tensor([0, 1, 2, 3, 0, 1])
    whole, _ = POLISH.run(target().module, images, labels, "abcdef", streams(6), Ledger(), CPU)
    alone, _ = POLISH.run(target().module, images[5:], labels[5:], "f", streams(6)[5:], Ledger(), CPU)
    assert torch.equal(whole[5:], alone)


def test_polish_that_the_budget_ends_leaves_images_as_they_were() -> None:
    attacked, images = target(Budget(queries=50)), pictures(6)
    polished, enough = POLISH.run(
        attacked.module, images, torch.tensor([0, 1, 2, 3, 0, 1]), "abcdef", streams(6), attacked.ledger, CPU
    )
    assert not enough
    assert not torch.equal(polished[:4], images[:4])
    assert torch.equal(polished[4:], images[4:])
