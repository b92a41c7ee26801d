"""The search for groups: the published loss and steps against a plain loop, and what becomes of its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_attack_deep_inversion.competition import jensen_shannon
from mi_attack_deep_inversion.config import DeepInversionConfig
from mi_attack_deep_inversion.synthesis import Synthesis, joined
from mi_image.modality import ImageModality
from micore.contracts import Case
from micore.inputs import InputSpec
from micore.kit.case_rows import standard_normal, uniform_draws
from micore.kit.search import Found, RowStatus
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Budget, Ledger

CPU = Runtime(device=torch.device("cpu"), seed=3)
SPEC = InputSpec(shape=(1, 8, 8), mean=(0.4,), std=(0.3,))
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(3)]
CONFIG: Mapping[str, object] = {
    "restarts": 2, "companions": 1, "low_steps": 3, "steps": 4, "learning_rate": 0.1, "warm_up": 2, "flip": 0.5,
    "statistics_weight": 0.7, "total_variation_weight": 0.05, "total_variation_l1_weight": 0.02, "norm_weight": 0.01,
    "jitter": 3,
}  # fmt: skip


def network(seed: int = 0) -> nn.Module:
    with CPU.seeded("network", seed):
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6),
            nn.Flatten(), nn.Linear(6 * 36, 3),
        )  # fmt: skip
        for layer in module.train().modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        for _ in range(3):
            module(torch.randn(16, 1, 8, 8))
    return module.eval()


def target(budget: Budget | None = None, module: nn.Module | None = None) -> Target:
    return Target(
        module or network(), access=Access.WHITE_BOX, adapter=ImageModality().adapter(SPEC), input_spec=SPEC,
        classes=("a", "b", "c"), ledger=Ledger(budget=budget or Budget()), runtime=CPU,
    )  # fmt: skip


def labels(cases: list[Case] = CASES) -> Tensor:
    return torch.tensor([[case.label, case.label, (case.label or 0) - 1] for case in cases]) % 3


def run(
    cases: list[Case] = CASES, budget: Budget | None = None, tile: int = 32, student: nn.Module | None = None,
    victim: Target | None = None, **options: object,
) -> tuple[Found, Tensor, Target]:  # fmt: skip
    config = DeepInversionConfig.model_validate({**CONFIG, **options})
    attacked = victim or target(budget)
    synthesis = Synthesis(attacked, config, student)
    found, images = synthesis.run(cases, labels(cases), attacked.ledger, replace(CPU, tile=tile))
    return found, images, attacked


# one group, in float64, as the paper has it ---------------------------------------------------------------


def published(case: Case) -> tuple[Tensor, Tensor]:
    """Search the group of one case with torch's own Adam; return its pixels and the last loss."""
    config = DeepInversionConfig.model_validate(CONFIG)
    module = network().double().requires_grad_(False)
    mean, std = SPEC.mean[0], SPEC.std[0]
    pixels = standard_normal([case], (1, 3, 1, 8, 8), CPU, "pixels")[0, 0].double()
    pixels = pixels.clamp(-mean / std, (1 - mean) / std)
    loss = torch.zeros(())
    for pooling, steps in ((2, 3), (1, 4)):
        numbers = uniform_draws([case], 1, 3, CPU, f"jitter-{pooling}")(0, 50)
        pixels = pixels.clone().requires_grad_(True)
        warm_up = min(config.warm_up, steps // 2)
        adam = torch.optim.Adam([pixels], lr=config.learning_rate, betas=config.betas)
        for step in range(steps):
            rising = (step + 1) / warm_up
            falling = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
            adam.param_groups[0]["lr"] = config.learning_rate * (rising if step < warm_up else falling)
            seen = pixels if pooling == 1 else functional.avg_pool2d(pixels, 2)
            limit = config.jitter // pooling
            shifts = [math.floor(float(number) * (2 * limit + 1)) - limit for number in numbers[step, :2]]
            seen = torch.roll(seen, shifts, dims=(2, 3))
            seen = seen.flip(3) if float(numbers[step, 2]) < 0.5 else seen
            loss = published_loss(module, seen, labels([case])[0], config)
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                pixels.clamp_(-mean / std, (1 - mean) / std)
        pixels = pixels.detach()
    return pixels, loss.detach()


def published_loss(module: nn.Module, seen: Tensor, wanted: Tensor, config: DeepInversionConfig) -> Tensor:
    """Return the loss of a batch: the target enlarges what is small by itself, in canonical values."""
    images = seen * SPEC.std[0] + SPEC.mean[0]
    large = images
    if seen.shape[2] != 8:
        large = functional.interpolate(images, (8, 8), mode="bilinear", align_corners=False, antialias=True)
    values, features = (large - SPEC.mean[0]) / SPEC.std[0], torch.zeros((), dtype=torch.float64)
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            channels = values.transpose(0, 1).flatten(1)
            difference = (channels.mean(1) - layer.running_mean).norm()
            difference = difference + (channels.var(1, unbiased=False) - layer.running_var).norm()
            features = features + (10.0 if layer is module[1] else 1.0) * difference
        values = layer(values)
    right, down = seen[:, :, :, 1:] - seen[:, :, :, :-1], seen[:, :, 1:] - seen[:, :, :-1]
    falling, rising = seen[:, :, 1:, 1:] - seen[:, :, :-1, :-1], seen[:, :, 1:, :-1] - seen[:, :, :-1, 1:]
    parts = (right, down, falling, rising)
    return (
        functional.cross_entropy(values, wanted)
        + config.statistics_weight * features
        + config.total_variation_weight * sum(part.norm() for part in parts)
        + config.total_variation_l1_weight * sum(part.abs().mean() for part in parts)
        + config.norm_weight * seen.flatten(1).norm(dim=1).mean()
    )


def test_a_group_is_searched_as_published() -> None:
    found, images, _ = run()
    for row, case in enumerate(CASES):
        pixels, loss = published(case)
        torch.testing.assert_close(found.values[row].double(), pixels, rtol=1e-3, atol=1e-3)
        assert float(found.losses[row]) == pytest.approx(float(loss), rel=1e-3)
        expected = (pixels * SPEC.std[0] + SPEC.mean[0]).clamp(0, 1)
        torch.testing.assert_close(images[row].double(), expected, rtol=1e-3, atol=1e-3)


# parts, groups, counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 6, 32], ids=["one-group", "two-groups", "all"])
def test_a_group_does_not_depend_on_the_others(tile: int) -> None:
    together, _, _ = run(tile=tile)
    alone, _, _ = run([CASES[1]], tile=tile)
    assert torch.equal(together.values[1:2], alone.values)


def test_every_image_of_every_step_is_counted() -> None:
    _, _, victim = run(tile=6)  # two groups at a time: the last pass is padded
    each = 3 * (3 + 4)
    assert {name: (spent.queries, spent.gradients) for name, spent in victim.ledger.cases.items()} == {
        case.id: (each, each) for case in CASES
    }


def test_images_are_canonical_and_steps_those_of_both_parts() -> None:
    found, images, _ = run(learning_rate=5.0)
    assert images.shape == (3, 3, 1, 8, 8)
    assert float(images.min()) == 0.0
    assert float(images.max()) == 1.0
    assert found.steps.tolist() == [7] * 3
    assert found.history.shape == (3, 2)
    assert run(low_steps=0)[0].steps.tolist() == [4] * 3


def test_a_budget_in_the_second_part_stops_what_the_first_one_found() -> None:
    found, _, _ = run(budget=Budget(queries=3 * 9 + 2 * 9 + 1))
    assert found.statuses == [RowStatus.STOPPED] * 3
    assert found.steps.tolist() == [5] * 3
    one_by_one, _, _ = run(budget=Budget(queries=3 * 9 + 4), tile=3)
    assert one_by_one.statuses == [RowStatus.STOPPED] * 3
    assert one_by_one.steps.tolist() == [4, 3, 3]
    assert torch.isfinite(one_by_one.losses).all()


def test_a_row_that_failed_in_one_part_has_failed() -> None:
    def part(*statuses: RowStatus) -> Found:
        n = len(statuses)
        return Found(
            values=torch.zeros(n, 1), losses=torch.zeros(n), steps=torch.ones(n), statuses=statuses,
            history=torch.zeros(n, 1),
        )  # fmt: skip

    whole = joined(part(RowStatus.FAILED, RowStatus.DONE), part(RowStatus.DONE, RowStatus.WAITING))
    assert whole.statuses == [RowStatus.FAILED, RowStatus.STOPPED]


def test_competition_makes_a_student_disagree() -> None:
    """On untrained networks, whose answers jitter and smoothness would level: without these."""
    student = network(seed=1).requires_grad_(False)
    options = {"low_steps": 0, "steps": 60, "jitter": 0, "flip": 0.0, "statistics_weight": 0.0}
    options |= {"total_variation_weight": 0.0, "total_variation_l1_weight": 0.0}
    _, calm, victim = run(**options)
    _, competing, _ = run(student=student, competition_weight=20.0, **options)

    def divergence(images: Tensor) -> float:
        shown = images.flatten(0, 1)
        return float(jensen_shannon(victim.module(shown), student(shown)).mean())

    assert divergence(competing) > 1.5 * divergence(calm)
