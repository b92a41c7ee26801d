"""Wasserstein training of the public GAN: the penalty, resuming bit for bit, one GAN for several attacks."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_image.dcgan import DcganGenerator, WganCritic
from mi_image.priors import GanPrior
from mi_image.wgan_training import SMOKE, gan_state, restore_gan
from micore.contracts import Prior
from micore.errors import MiError
from micore.kit.generator_training import draw_samples
from micore.kit.stages import Stages
from micore.kit.wgan import WganSettings, WganTraining, gradient_penalty
from micore.runtime import Checkpoints, Random, Runtime
from micore.shelf import Shelf

TINY = WganSettings(latent_dim=3, width=2, iterations=3, batch_size=4, critic_steps=2, learning_rate=1e-2)
CPU = Runtime(device=torch.device("cpu"), seed=1)


def spots(n: int = 40) -> Tensor:
    """Return pictures of 8 px with a bright row, the fourth or the fifth."""
    images = torch.zeros(n, 1, 8, 8)
    images[::2, :, 3], images[1::2, :, 4] = 1, 1
    return images


def make(settings: WganSettings = TINY, seed: int = 0) -> WganTraining:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = DcganGenerator(settings.latent_dim, 8, 1, settings.width)
        critic = WganCritic(8, 1, settings.width)
    return WganTraining(generator, critic, spots(), Random(seed), settings)


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors(value)]
    return [torch.as_tensor(state)]


def same(first: Any, second: Any) -> bool:
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return len(pairs) > 10 and all(torch.equal(one, other) for one, other in pairs)


class Quadratic(nn.Module):
    """D(x) = sum of w x^2, whose slope is 2 w x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return (self.weight * images.flatten(1).square()).sum(1)


def test_gradient_penalty_and_its_gradient_equal_the_formula() -> None:
    critic, stream = Quadratic(), torch.Generator().manual_seed(0)
    real, generated = (torch.rand(5, 1, 2, 2, generator=stream, dtype=torch.float64) for _ in range(2))
    shares = torch.rand(5, generator=stream, dtype=torch.float64)
    penalty = gradient_penalty(critic, real, generated, shares)
    (gradient,) = torch.autograd.grad(penalty, critic.weight)
    weight = critic.weight.detach()
    between = (shares[:, None] * real.flatten(1) + (1 - shares[:, None]) * generated.flatten(1)).tolist()
    slopes = torch.tensor([[2 * float(w) * x for w, x in zip(weight, row, strict=True)] for row in between])
    lengths = slopes.double().square().sum(1).sqrt()
    torch.testing.assert_close(penalty.detach(), ((lengths - 1) ** 2).mean(), rtol=1e-6, atol=0)
    points = torch.tensor(between, dtype=torch.float64)
    by_hand = (2 * (lengths - 1) / lengths)[:, None] * 4 * weight * points.square()  # d|s|/dw = 4 w x^2 / |s|
    torch.testing.assert_close(gradient, by_hand.mean(0), rtol=1e-5, atol=0)


def test_a_critic_of_slope_one_pays_nothing() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    critic[1].weight.data = torch.full((1, 4), 0.5)
    real, generated = torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2)
    assert float(gradient_penalty(critic, real, generated, torch.rand(3)).detach()) == pytest.approx(0, abs=1e-10)


def test_training_moves_every_parameter_and_leaves_global_randomness_alone() -> None:
    training, before_random = make(), torch.get_rng_state()
    before = [p.detach().clone() for n in (training.generator, training.critic) for p in n.parameters()]
    losses = training.step()
    after = [p for n in (training.generator, training.critic) for p in n.parameters()]
    assert all(torch.isfinite(value) for value in losses.values())
    still = [new.numel() for old, new in zip(before, after, strict=True) if torch.equal(old, new)]
    assert still == [1]  # the bias of the critic's score cancels in the Wasserstein loss
    assert torch.equal(before_random, torch.get_rng_state())


def test_resuming_equals_an_uninterrupted_training() -> None:
    whole, killed = make(), make()
    for _ in range(3):
        whole.step()
    killed.step()
    saved = copy.deepcopy(killed.state())
    killed.step()  # what happens after the snapshot must not change it
    resumed = make(seed=1)
    resumed.load(saved)
    assert resumed.iteration == 1
    for _ in range(2):
        resumed.step()
    assert same(whole.state(), resumed.state())


class _KilledError(BaseException):
    pass


class Killing(Checkpoints):
    """Saves each state and kills the work at the second."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, interval_s=0)
        self.left = 2

    def offer(self, state: Any) -> None:
        super().offer(state)
        self.left -= 1
        if self.left == 0:
            raise _KilledError


def test_a_killed_preparation_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    def prepared(runtime: Runtime) -> Any:
        return Stages(runtime).run("gan", lambda stage: gan_state(spots(), TINY, stage))

    path = tmp_path / "state.safetensors"
    with pytest.raises(_KilledError):
        prepared(replace(CPU, checkpoints=Killing(path)))
    resumed = prepared(replace(CPU, checkpoints=Checkpoints(path, interval_s=1e9)))
    assert same(resumed, prepared(CPU))


def test_attacks_share_one_gan_of_the_same_data(tmp_path: Path) -> None:
    runtime = replace(CPU, shelf=Shelf(tmp_path))
    first = gan_state(spots(), TINY, runtime)
    again = gan_state(spots(), TINY, runtime)
    assert len(list(tmp_path.glob("wgan-*.safetensors"))) == 1
    assert same(first, again)
    gan_state(spots(38), TINY, runtime)
    gan_state(spots(), replace(TINY, width=4), runtime)
    assert len(list(tmp_path.glob("wgan-*.safetensors"))) == 3


def test_the_restored_gan_is_frozen_and_gives_canonical_images() -> None:
    generator, critic = restore_gan(gan_state(spots(), TINY, CPU), CPU)
    for network in (generator, critic):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    prior = GanPrior(generator)
    assert isinstance(prior, Prior)
    images = prior.sample(5, CPU.rng("prior"))
    assert images.shape == (5, 1, 8, 8)
    assert 0 <= images.min() < images.max() <= 1
    assert critic(images).shape == (5,)


def test_it_learns_what_the_public_images_look_like() -> None:
    settings = WganSettings(**{**SMOKE, "iterations": 200, "learning_rate": 5e-3})
    generator, critic = restore_gan(gan_state(spots(64), settings, CPU), CPU)
    images = GanPrior(generator).sample(64, CPU.rng("prior"))
    rows = images.mean(dim=(1, 3))
    assert float(rows[:, 3:5].sum(1).mean() / rows.sum(1).mean()) > 0.8  # bright in these rows
    assert {3, 4} == set(rows.argmax(1).tolist())  # and of both kinds
    noise = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert critic(spots(64)).mean() > critic(noise).mean()


@pytest.mark.parametrize("shape", [(2, 1, 12, 12), (2, 1, 16, 8)])
def test_images_it_cannot_make_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MiError, match="square images of 8, 16, 32") as caught:
        gan_state(torch.rand(shape), TINY, CPU)
    assert "resize" in (caught.value.hint or "")


def test_bytes_are_drawn_as_canonical_images() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    drawn = draw_samples(images, 50, Random(0))
    assert set(drawn.flatten().mul(255).round().tolist()) == {0, 51, 255}
    assert drawn.dtype == torch.float32
