"""The diffusion model: noise schedule, guidance and samplers against oracles that know the clean image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mi_attack_diff_mi.denoiser import (
    TIMES,
    Denoiser,
    DenoiserShape,
    DiffusionPrior,
    build_denoiser,
    n_refining_steps,
    require_makeable,
    restore_denoiser,
    to_canonical,
)
from mi_attack_diff_mi.pretraining import Pretraining, PretrainingSettings, weights_of
from micore.errors import DataError
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), seed=1)
SHAPE = DenoiserShape(
    channels=1, height=8, width=8, n_classes=3, base=4, multipliers=(1, 2), res_blocks=1, attention=(2,), head_width=4
)
LABELS = torch.tensor([0, 2])


def images(n: int = 2) -> Tensor:
    return CPU.rng("images").uniform((n, 1, 8, 8)) * 2 - 1


def noise(*shape: int) -> Tensor:
    return CPU.rng("noise", *shape).normal(shape)


class Oracle(nn.Module):
    """Knows the clean images, so it tells their noise exactly; remembers what it was asked."""

    def __init__(self, denoiser: Denoiser, clean: Tensor) -> None:
        super().__init__()
        self.signal, self.clean = denoiser.signal, clean
        self.indices: list[int] = []

    def forward(self, noisy: Tensor, indices: Tensor, labels: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.indices += indices.unique().tolist()
        kept = self.signal[indices + 1].view(-1, 1, 1, 1)
        clean = self.clean.repeat(len(noisy) // len(self.clean), 1, 1, 1)
        return ((noisy - kept.sqrt() * clean) / (1 - kept).sqrt(),)


class ByLabel(nn.Module):
    """Says the label, everywhere in the image."""

    def forward(self, noisy: Tensor, indices: Tensor, labels: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (labels.view(-1, 1, 1, 1).float().expand_as(noisy),)


def denoiser(network: nn.Module | None = None) -> Denoiser:
    made = build_denoiser(SHAPE, CPU).eval()
    if network is not None:
        made.network = network  # type: ignore[assignment]
    return made


def with_oracle(clean: Tensor) -> tuple[Denoiser, Oracle]:
    made = build_denoiser(SHAPE, CPU).eval()
    oracle = Oracle(made, clean)
    made.network = oracle  # type: ignore[assignment]
    return made, oracle


# schedule -------------------------------------------------------------------------------------------------


def test_schedule_is_the_product_of_what_each_step_keeps() -> None:
    kept = np.cumprod(1 - np.linspace(1e-4, 2e-2, TIMES))
    found = denoiser().signal
    assert found[0] == 1
    np.testing.assert_allclose(found[1:].numpy(), kept, rtol=2e-4)


def test_an_image_at_time_0_is_itself_and_at_time_1000_nearly_noise() -> None:
    clean, drawn = images(), noise(2, 1, 8, 8)
    assert torch.equal(denoiser().diffuse(clean, torch.zeros(2, dtype=torch.int64), drawn), clean)
    last = denoiser().diffuse(clean, torch.full((2,), TIMES), drawn)
    torch.testing.assert_close(last, drawn, atol=0.01, rtol=0)


def test_rows_of_a_batch_may_have_their_own_times() -> None:
    clean, drawn, times = images(), noise(2, 1, 8, 8), torch.tensor([10, 700])
    both = denoiser().diffuse(clean, times, drawn)
    for row in range(2):
        one = slice(row, row + 1)
        assert torch.equal(both[one], denoiser().diffuse(clean[one], times[one], drawn[one]))


# guidance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_leads_away_from_the_null_class_which_is_the_last(scale: float) -> None:
    found = denoiser(ByLabel()).guided(images(), torch.tensor([5, 5]), LABELS, scale)
    expected = scale * LABELS - (scale - 1) * SHAPE.n_classes
    torch.testing.assert_close(found, expected.view(-1, 1, 1, 1).expand_as(found).float())


def test_guidance_is_one_pass_over_both_halves() -> None:
    made, times, values = denoiser(), torch.tensor([5, 900]), images()
    with torch.no_grad():
        found = made.guided(values, times, LABELS, 3.0)
        apart = [made(values, times, labels) for labels in (LABELS, torch.full_like(LABELS, made.null))]
    torch.testing.assert_close(found, 3 * apart[0] - 2 * apart[1], atol=1e-5, rtol=1e-5)


# samplers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_solver_predicts_the_clean_image_at_every_step(scale: float) -> None:
    clean = images()
    made, oracle = with_oracle(clean)
    predicted = made.predictions(noise(2, 1, 8, 8), LABELS, 10, scale)
    assert len(predicted) == 10
    for one in predicted:
        torch.testing.assert_close(one, clean, atol=2e-3, rtol=0)
    assert oracle.indices[0] == TIMES - 1
    assert oracle.indices == sorted(oracle.indices, reverse=True)


def test_predictions_are_clipped() -> None:
    for one in denoiser().predictions(30 * noise(2, 1, 8, 8), LABELS, 4, 3.0):
        assert one.abs().max() <= 1


def test_gradients_reach_the_network_through_all_steps() -> None:
    made = denoiser()
    predicted = made.predictions(noise(2, 1, 8, 8), LABELS, 3, 3.0)
    weight = made.network.class_embedding.weight
    (gradient,) = torch.autograd.grad(predicted[-1].square().sum(), weight)
    moved = gradient.abs().sum(dim=1) > 0
    assert moved.tolist() == [True, False, True, True]  # classes 0 and 2, and the null class


@pytest.mark.parametrize(("start", "steps"), [(100, 10), (95, 10), (10, 1), (0, 0)])
def test_refining_finds_the_clean_image_again(start: int, steps: int) -> None:
    clean = images()
    made, oracle = with_oracle(clean)
    assert n_refining_steps(start, 100) == steps
    found = made.refine(clean, LABELS, start, 100, 3.0, noise(steps + 1, 2, 1, 8, 8))
    torch.testing.assert_close(found, clean, atol=1e-5 if start else 0, rtol=0)
    assert oracle.indices == list(range(start - 1, -1, -10))


def test_refining_adds_the_noise_that_ddpm_does() -> None:
    """With eta 1 and every time on the grid, DDIM's spread is that of DDPM's posterior (Ho et al. 2020, equation 7)."""
    clean = images()
    made, _ = with_oracle(clean)
    kept = made.signal.double()
    drawn = noise(3, 2, 1, 8, 8)
    found = made.refine(clean, LABELS, 2, TIMES, 1.0, drawn)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)
    noisy = made.diffuse(clean, torch.tensor([2, 2]), drawn[0]).double()
    beta = 1 - kept[2] / kept[1]
    mean = (kept[1].sqrt() * beta * clean + (kept[2] / kept[1]).sqrt() * (1 - kept[1]) * noisy) / (1 - kept[2])
    spread = math.sqrt(beta * (1 - kept[1]) / (1 - kept[2]))
    seen: list[Tensor] = []
    hook = made.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    made.refine(clean, LABELS, 2, TIMES, 1.0, drawn)
    hook.remove()
    torch.testing.assert_close(seen[1].double(), mean + spread * drawn[1], atol=1e-5, rtol=0)


def test_prior_draws_the_same_images_from_the_same_stream() -> None:
    prior = DiffusionPrior(denoiser().requires_grad_(False), steps=3, scale=3.0)
    one, again, other = (prior.sample(4, CPU.rng(name)) for name in ("a", "a", "b"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == (4, 1, 8, 8)
    assert 0 <= one.min() <= one.max() <= 1


# building -------------------------------------------------------------------------------------------------


def test_shape_survives_json_and_weights_a_restart() -> None:
    assert DenoiserShape.from_dict({**SHAPE.to_dict(), "multipliers": [1, 2], "attention": [2]}) == SHAPE
    made = denoiser().requires_grad_(False)
    again = restore_denoiser(SHAPE, weights_of(made), Runtime(device=torch.device("cpu"), seed=7))
    times, values = torch.tensor([5, 900]), images()
    assert torch.equal(made(values, times, LABELS), again(values, times, LABELS))
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize(("size", "levels", "fits"), [(16, 2, True), (16, 5, True), (12, 3, True), (12, 4, False)])
def test_sizes_that_cannot_be_halved_are_refused(size: int, levels: int, fits: bool) -> None:
    values = torch.zeros(1, 3, size, size)
    if fits:
        return require_makeable(values, (1,) * levels)
    with pytest.raises(DataError, match="cannot make 12x12 images") as caught:
        require_makeable(values, (1,) * levels)
    assert "a multiple of 8" in (caught.value.hint or "")


def test_canonical_range() -> None:
    assert to_canonical(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 0.5, 1, 1]


# training -------------------------------------------------------------------------------------------------


def training(**changes: object) -> Pretraining:
    settings = {"iterations": 4, "batch_size": 8, "learning_rate": 1e-2, "ema": 0.5, "null_probability": 0.5}
    members = torch.tensor([[0, 1], [2, 3], [4, 5]])
    pictures = (images(6) + 1) / 2
    return Pretraining(
        build_denoiser(SHAPE, CPU), pictures, members, PretrainingSettings(**{**settings, **changes}), CPU
    )


def test_training_lowers_the_error_and_the_mean_follows_it() -> None:
    run = training()
    before = run.loss().item()
    start = weights_of(run.denoiser)
    run.step()
    name = "network.conv_in.weight"
    moved = weights_of(run.denoiser)[name]
    decay = min(0.5, 2 / 11)
    torch.testing.assert_close(weights_of(run.mean)[name], decay * start[name] + (1 - decay) * moved)
    for _ in range(25):
        run.step()
    run.iteration = 0
    assert run.loss().item() < 0.8 * before


@pytest.mark.parametrize(("share", "trained"), [(0.0, [True, True, True, False]), (1.0, [False] * 3 + [True])])
def test_the_null_class_takes_its_share(share: float, trained: list[bool]) -> None:
    run = training(null_probability=share, batch_size=64)
    (gradient,) = torch.autograd.grad(run.loss(), run.denoiser.network.class_embedding.weight)
    assert (gradient.abs().sum(dim=1) > 0).tolist() == trained


def test_training_goes_on_bit_for_bit() -> None:
    whole, first, second = training(), training(), training()
    for _ in range(4):
        whole.step()
    first.step()
    first.step()
    second.load(first.state())
    second.step()
    second.step()
    for name, value in weights_of(whole.mean).items():
        assert torch.equal(value, weights_of(second.mean)[name]), name
