"""AlignMI: gradients are the mean over changed copies, each copy is counted, and nothing else of the base changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_attack_alignmi.alignment import aligned
from mi_attack_alignmi.attack import Aligned, AlignedConfig
from mi_attack_alignmi.changes import Erasing, Noise, copy_numbers
from micore.attacks import preparer
from micore.configs import preset_config
from micore.contracts import HasForecast, HasPrior, WrapsAttack
from micore.errors import AccessDenied, ConfigError
from micore.kit.target_views import ModuleView
from micore.runtime import Runtime
from micore.target import CountedModule
from micore.testing import Trial
from micore.threat import Access, Ledger, Spending

RUNTIME = Runtime(device=torch.device("cpu"))
TRANSFORMS = ("warp", "noise", "erase")
COPIES = 5


def counted() -> CountedModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 4))
    return CountedModule(network.requires_grad_(False), lambda samples: 2 * samples - 1, Ledger())


def images(n: int = 3) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def config(**options: Any) -> AlignedConfig:
    return AlignedConfig(base="plmi", copies=COPIES, **options)


def view(module: CountedModule, copies: int = COPIES, **options: Any) -> ModuleView:
    settings = config(**options)
    return aligned(module, settings.change, copies, settings.value, RUNTIME)


def copies_of(samples: Tensor, transform: str) -> list[Tensor]:
    """The changed copies, as the attack makes them."""
    stream, change = RUNTIME.rng("alignmi", "keys"), config(transform=transform).change(1)
    numbers = copy_numbers(samples.detach(), [stream.seed() for _ in range(COPIES)], change.n_numbers(samples))
    return [change.apply(samples, numbers(copy)) for copy in range(COPIES)]


def gradient(logits: Tensor, samples: Tensor, weights: Tensor) -> Tensor:
    return torch.autograd.grad((logits * weights).sum(), samples)[0]


# gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("value", ["mean", "plain"])
def test_the_gradient_is_the_mean_of_the_copies_gradients(transform: str, value: str) -> None:
    """For a loss that is linear in the logits: each copy's own gradient, by autograd, one after the other."""
    module, samples = counted(), images().requires_grad_()
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    mine = gradient(view(module, transform=transform, value=value)(samples), samples, weights)
    each = [gradient(module(copy), samples, weights).double() for copy in copies_of(samples, transform)]
    torch.testing.assert_close(mine.double(), torch.stack(each).mean(dim=0), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(mine, gradient(module(samples), samples, weights), rtol=1e-2)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_any_loss_is_derived_at_the_value_that_it_was_given(transform: str) -> None:
    """Cross-entropy: its derivative at the value, times the mean of the copies' Jacobians."""
    module, samples, labels = counted(), images().requires_grad_(), torch.tensor([0, 1, 2])
    answers = torch.stack([module(copy) for copy in copies_of(samples, transform)])
    for value, expected in (("mean", answers.mean(dim=0)), ("plain", module(samples))):
        logits = view(module, transform=transform, value=value)(samples)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
        (mine,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), samples)
        outer = expected.detach().softmax(dim=1) - functional.one_hot(labels, 4)
        jacobians = [gradient(answer, samples, outer) for answer in _again(module, samples, transform)]
        torch.testing.assert_close(mine, torch.stack(jacobians).mean(dim=0), rtol=1e-4, atol=1e-6)


def _again(module: CountedModule, samples: Tensor, transform: str) -> list[Tensor]:
    return [module(copy) for copy in copies_of(samples, transform)]


class Rippled(nn.Module):
    """A logit that is linear in the pixels, under ripples that are small in value and large in gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        ripples = torch.sin(60 * flat).mean(dim=1)
        return torch.stack([flat[:, :20].mean(dim=1) + 0.2 * ripples, flat.new_zeros(len(flat))], dim=1)


def test_averaging_leaves_what_the_copies_have_in_common() -> None:
    module, samples = CountedModule(Rippled(), lambda batch: batch, Ledger()), images(4).requires_grad_()
    smooth = torch.zeros(64)
    smooth[:20] = 1.0

    def agreement(answer: Any) -> float:
        (found,) = torch.autograd.grad(answer(samples)[:, 0].sum(), samples)
        return float(functional.cosine_similarity(found.flatten(1), smooth[None]).mean())

    assert agreement(module) < 0.3
    assert agreement(view(module, copies=100, transform="noise")) > 0.8


# a case by itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_copies_depend_on_the_candidate_alone(transform: str) -> None:
    together, alone = copies_of(images(), transform), copies_of(images()[1:2], transform)
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[1:2], one, rtol=0, atol=1e-6)
    moved = copies_of(images().roll(1, dims=3), transform)
    assert not torch.allclose(moved[0].roll(-1, dims=3), together[0], atol=1e-3)


def test_numbers_are_uniform_and_new_for_each_copy_and_step() -> None:
    stream = RUNTIME.rng("test")
    keys = [stream.seed() for _ in range(2)]
    first, second = (copy_numbers(images(500), keys, 8)(copy).double() for copy in range(2))
    for numbers in (first, second):
        assert float(numbers.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(numbers.std()) == pytest.approx(12**-0.5, abs=0.01)
    assert abs(float(np.corrcoef(first.flatten(), second.flatten())[0, 1])) < 0.05
    later = copy_numbers((images(500) + 0.02).clamp(0, 1), keys, 8)(0).double()
    assert abs(float(np.corrcoef(first.flatten(), later.flatten())[0, 1])) < 0.05


def test_erased_squares_have_the_wanted_area_and_no_gradient() -> None:
    change = Erasing(least=0.1, most=0.4, fill=0.5)
    samples = torch.full((200, 3, 40, 40), 0.25, requires_grad=True)
    erased = change.apply(samples, torch.rand(200, 3, generator=torch.Generator().manual_seed(0)))
    holes = erased == 0.5
    assert torch.equal(holes[:, 0], holes[:, 2])
    areas = holes[:, 0].double().mean(dim=(1, 2))
    assert float(areas.min()) > 0.1 - 0.03
    assert float(areas.max()) < 0.4 + 0.03
    assert float(areas.mean()) == pytest.approx(0.25, abs=0.02)
    rows, columns = holes[:, 0].any(dim=2).sum(dim=1), holes[:, 0].any(dim=1).sum(dim=1)
    assert int((rows - columns).abs().max()) <= 1
    assert torch.equal((rows * columns).double() / 1600, areas)
    (found,) = torch.autograd.grad(erased.sum(), samples)
    assert torch.equal(found == 0, holes)
    assert holes[:, 0].any(dim=0).double().mean() > 0.95  # anywhere


def test_noise_has_the_wanted_spread() -> None:
    samples = torch.full((50, 1, 20, 20), 0.5)
    numbers = torch.rand(50, 400, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    noise = Noise(spread=0.05).apply(samples, numbers) - samples
    assert float(noise.std()) == pytest.approx(0.05, rel=0.03)
    assert abs(float(noise.mean())) < 2e-3


# what it costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "queries"), [("mean", COPIES), ("plain", COPIES + 1)])
def test_each_candidate_costs_its_copies(value: str, queries: int) -> None:
    module, samples = counted(), images().requires_grad_()
    view(module, value=value)(samples).sum().backward()
    assert module._ledger.total == Spending(queries=3 * queries, gradients=3 * COPIES)


def test_without_gradients_it_is_the_target_itself() -> None:
    module = counted()
    with torch.no_grad():
        assert torch.equal(view(module)(images().requires_grad_()), module(images()))
    assert torch.equal(view(module)(images()), module(images()))
    assert module._ledger.total == Spending(queries=4 * 3)
    assert view(module).inner is module.inner


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("alignmi", base="gmi", base_options={"steps": 4, "restarts": 2})


@pytest.mark.parametrize("value", ["mean", "plain"])
@pytest.mark.parametrize("transform", ["warp", "erase"])
def test_it_spends_what_it_forecasts(toy: Trial, value: str, transform: str) -> None:
    attack, (prepared_on, _) = toy.attack(value=value, transform=transform), toy.preparation
    target, found = toy.run(attack)
    forecast, alone = (each.forecast(4, 128) for each in (attack, attack.wrapped()))
    assert forecast.preparation == alone.preparation == prepared_on.ledger.total
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert forecast.per_case.gradients == 3 * alone.per_case.gradients > 0
    assert len(found) == 4


def test_copies_that_are_not_changed_are_the_base_attack(toy: Trial) -> None:
    attack = toy.attack(copies=2, crop_area=1.0, rotation=0.0)
    _, found = toy.run(attack)
    _, base = toy.run(attack.wrapped())
    for mine, other in zip(found, base, strict=True):
        torch.testing.assert_close(mine.samples, other.samples, rtol=0, atol=1e-3)


def test_a_budget_holds(toy: Trial) -> None:
    attack = toy.attack()
    wanted = attack.forecast(4, 128).per_case.queries
    target, found = toy.run(attack, budget=wanted)
    assert target.ledger.total.queries <= wanted
    assert not any(item.complete for item in found)


# what fits ----------------------------------------------------------------------------------------------------


def test_it_prepares_what_its_base_does_and_offers_what_that_has(toy: Trial) -> None:
    attack = toy.attack()
    entry, base = preparer(toy.registry, toy.entry, attack)
    assert entry.spec.name == "gmi"
    assert base is attack.wrapped()
    assert all(isinstance(attack, kind) for kind in (WrapsAttack, HasPrior, HasForecast))
    assert not isinstance(toy.attack(base="mi-face"), HasPrior)


def test_it_needs_white_box_access(toy: Trial) -> None:
    with pytest.raises(AccessDenied):
        list(toy.attack().run(toy.target(access=Access.SCORES), toy.cases, toy.prepared, toy.runtime))


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    with pytest.raises(ConfigError, match="goal instance"):
        toy.attack(base="gmi-masked")
    with pytest.raises(ConfigError, match="larger than erase_most"):
        toy.attack(erase_least=0.5)


def test_presets_are_the_papers() -> None:
    paper = preset_config(Aligned, "paper", {}, "alignmi")
    assert (paper.copies, paper.crop_area, paper.rotation, paper.spread) == (50, 0.8, 5.0, 0.05)
    assert paper.base_preset == "paper"
