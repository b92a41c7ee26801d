"""Training of T-ACGAN: its losses, when the target is asked and about what, resuming bit for bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_image.acgan import TacganDiscriminator
from mi_image.acgan_training import TacganSettings, TacganTraining, discriminator_loss, generator_loss
from mi_image.conditional_gan import ConditionalGenerator
from micore.runtime import Random
from micore.testing.counting import same

SMALL = TacganSettings(batch_size=4, critic_steps=2, warm_up=1)


def by_brightness(images: Tensor) -> Tensor:
    """Label images by whether their left half is the brighter one."""
    left, right = images.chunk(2, dim=3)
    return (left.mean(dim=(1, 2, 3)) > right.mean(dim=(1, 2, 3))).long()


def make(
    settings: TacganSettings = SMALL, seed: int = 0, ask: Callable[[Tensor], Tensor] = by_brightness,
    base: int = 2, n_images: int = 10,
) -> TacganTraining:  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = ConditionalGenerator(2, latent_dim=3, size=8, channels=1, base=base)
        discriminator = TacganDiscriminator(2, size=8, channels=1, base=base)
        images = torch.rand(n_images, 1, 8, 8)
    return TacganTraining(generator, discriminator, images, ask, Random(seed), settings)


def head_of(training: TacganTraining) -> Tensor:
    return training.discriminator.head.weight.detach().clone()


def test_the_losses_are_binary_cross_entropies() -> None:
    real, generated = ([0.3, -2.0, 40.0], [1.5, -0.2, -60.0])
    expected = sum(-math.log(1 / (1 + math.exp(-r))) for r in real) / 3
    expected += sum(math.log1p(math.exp(g)) for g in generated) / 3  # -log(1 - sigmoid(g))
    real_logits, logits = (torch.tensor(values, dtype=torch.float64) for values in (real, generated))
    assert float(discriminator_loss(real_logits, logits)) == pytest.approx(expected, rel=1e-12)
    cheated = sum(math.log1p(math.exp(-g)) for g in generated) / 3
    assert float(generator_loss(logits)) == pytest.approx(cheated, rel=1e-12)
    assert torch.isfinite(discriminator_loss(torch.tensor([-1e4]), torch.tensor([1e4])))


def test_one_step_follows_the_published_gradient() -> None:
    """The discriminator's first guided step, by hand: Adam's first step is the sign of the gradient times the rate."""
    settings = TacganSettings(batch_size=4, critic_steps=1, warm_up=0, learning_rate=1e-3, class_weight=1.5)
    training = make(settings)
    twin, rng = copy.deepcopy(training), Random(0)
    training._step_discriminator()
    real = twin.images[rng.integers(10, (4,))]
    latents = rng.normal((4, 3))
    with torch.no_grad():
        generated = twin.generator(latents, rng.integers(2, (4,)))
    network = twin.discriminator.train()
    realness, logits = network(torch.cat([real, generated]))
    probabilities = realness.sigmoid()
    binary = -probabilities[:4].log().mean() - (1 - probabilities[4:]).log().mean()
    wanted = by_brightness(generated)
    classes = -logits[4:].log_softmax(dim=1)[torch.arange(4), wanted].mean()
    before = network.head.weight.detach().clone()
    (gradient,) = torch.autograd.grad(binary + 1.5 * classes, network.head.weight)
    expected = before - 1e-3 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(training.discriminator.head.weight, expected, rtol=1e-3, atol=1e-6)


def test_the_target_is_asked_about_generated_images_only_and_never_in_the_warm_up() -> None:
    asked: list[Tensor] = []

    def ask(images: Tensor) -> Tensor:
        asked.append(images)
        return by_brightness(images)

    training = make(TacganSettings(batch_size=4, critic_steps=3, warm_up=2), ask=ask)
    for expected in (0, 0, 3, 6):
        training.step()
        assert len(asked) == expected
    assert all(images.shape == (4, 1, 8, 8) and not images.requires_grad for images in asked)
    reals = {tuple(image.flatten().tolist()) for image in training.images}
    assert not reals & {tuple(image.flatten().tolist()) for images in asked for image in images}


def test_the_class_head_rests_in_the_warm_up_and_the_rest_learns() -> None:
    training = make(TacganSettings(batch_size=4, critic_steps=1, warm_up=1))
    head, trunk = head_of(training), training.discriminator.realness.weight.detach().clone()
    training.step()
    assert torch.equal(head, head_of(training))
    assert not torch.equal(trunk, training.discriminator.realness.weight)
    training.step()
    assert not torch.equal(head, head_of(training))


def test_the_head_learns_the_targets_labels_and_the_generator_to_draw_them() -> None:
    settings = TacganSettings(batch_size=32, critic_steps=1, warm_up=20, learning_rate=1e-3, class_weight=1.5)
    training = make(settings, base=8, n_images=64)
    for _ in range(300):
        training.step()
    generator, discriminator = training.generator.eval(), training.discriminator.eval()
    labels = torch.arange(2).repeat(100)
    with torch.no_grad():
        images = generator(Random(5).normal((200, 3)), labels)
        told = discriminator(images)[1].argmax(dim=1)
    assert (told == by_brightness(images)).double().mean() > 0.9
    assert (by_brightness(images) == labels).double().mean() > 0.8


def test_resuming_equals_an_uninterrupted_training() -> None:
    whole = make()
    for _ in range(3):
        whole.step()
    killed = make()
    killed.step()
    saved: dict[str, Any] = copy.deepcopy(killed.state())
    killed.step()  # what happens after the snapshot must not change it
    resumed = make(seed=1)
    resumed.images = whole.images
    resumed.load(saved)
    assert resumed.iteration == 1
    for _ in range(2):
        resumed.step()
    assert same(whole.state(), resumed.state())


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.get_rng_state()
    training = make()
    training.step()
    assert torch.equal(before, torch.get_rng_state())
