"""Training of the conditional GAN: losses, resuming bit for bit, what it asks of the target."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_image.augment import Augmentation
from mi_image.conditional_gan import ConditionalGenerator, ProjectionDiscriminator
from mi_image.gan_training import ConditionalGanTraining, GanSettings, critic_loss, train_generator
from micore.runtime import Checkpoints, Random, Runtime

SMALL = GanSettings(batch_size=4, critic_steps=2)


def brightness(images: Tensor, labels: Tensor) -> Tensor:
    """Be smallest for images that are as bright as their label asks."""
    return (images.mean(dim=(1, 2, 3)) - labels).square()


def make(settings: GanSettings = SMALL, seed: int = 0, dtype: torch.dtype = torch.float32, **others: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = ConditionalGenerator(2, latent_dim=3, size=8, channels=1, base=2)
        critic = ProjectionDiscriminator(2, size=8, channels=1, base=2)
        images = torch.rand(10, 1, 8, 8)
    if dtype == torch.uint8:
        images = (images * 255).to(torch.uint8)
    members = torch.tensor([[0, 1, 2], [3, 4, 0]])
    options = {"guidance": brightness, "augmentation": Augmentation(flip=0), **others}
    return ConditionalGanTraining(generator, critic, images, members, Random(seed), settings, **options)


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors(value)]
    return [torch.as_tensor(state)]


def assert_same(first: Any, second: Any) -> None:
    pairs = list(zip(tensors(first.state()), tensors(second.state()), strict=True))
    assert len(pairs) > 50
    assert all(torch.equal(one, other) for one, other in pairs)


def test_critic_loss_is_the_hinge() -> None:
    loss = critic_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor(0.25 + 1.0))


def test_training_moves_every_parameter_and_stays_finite() -> None:
    training = make()
    before = [p.clone() for network in (training.generator, training.critic) for p in network.parameters()]
    losses = training.step()
    after = [p for network in (training.generator, training.critic) for p in network.parameters()]
    assert all(torch.isfinite(value) for value in losses.values())
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    # Each conv before a batch norm has a bias without effect; everything else learns.
    assert sum(moved) > 0.8 * len(moved)


def test_same_seed_same_training() -> None:
    first, second = make(), make()
    for training in (first, second):
        training.step()
    assert_same(first, second)


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.get_rng_state()
    training = make()
    training.step()
    assert torch.equal(before, torch.get_rng_state())


def test_resuming_equals_an_uninterrupted_training() -> None:
    whole = make()
    for _ in range(3):
        whole.step()
    killed = make()
    killed.step()
    saved = copy.deepcopy(killed.state())
    killed.step()  # what happens after the snapshot must not change it
    resumed = make(seed=1)
    resumed.images, resumed.members = whole.images, whole.members.flip(0)
    resumed.load(saved)
    assert resumed.iteration == 1
    for _ in range(2):
        resumed.step()
    assert_same(whole, resumed)


def test_train_gan_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    runtime = Runtime.create("cpu", checkpoints=Checkpoints(tmp_path / "state.safetensors", interval_s=0))
    train_generator(make(), 2, runtime, "training")
    resumed = make(seed=0)
    train_generator(resumed, 3, runtime, "training", runtime.checkpoints.load())
    whole = make()
    train_generator(whole, 3, Runtime.create("cpu"), "training")
    assert_same(whole, resumed)


def test_the_target_is_only_asked_in_generator_steps() -> None:
    asked: list[int] = []

    def guidance(images: Tensor, labels: Tensor) -> Tensor:
        asked.append(len(images))
        return brightness(images, labels)

    training = make(GanSettings(batch_size=4, critic_steps=5), guidance=guidance)
    training.step()
    training.step()
    assert asked == [4, 4]


def test_without_weight_the_target_is_not_asked() -> None:
    def refuse(images: Tensor, labels: Tensor) -> Tensor:
        raise AssertionError

    make(GanSettings(batch_size=4, critic_steps=1, guidance_weight=0), guidance=refuse).step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_real_images_carry_their_pseudo_label_and_noise(dtype: torch.dtype) -> None:
    training = make(dtype=dtype)
    clean = training.images.float() / (255 if dtype == torch.uint8 else 1)
    images, labels = training._draw_real()
    for image, label in zip(images, labels, strict=True):
        excess = image - clean[training.members[label]]
        fits = ((excess >= -1e-6) & (excess <= 1 / 256 + 1e-6)).flatten(1).all(dim=1)
        assert fits.sum() == 1


def test_result_is_a_frozen_copy() -> None:
    training = make()
    training.step()
    result = training.result
    assert not result.training
    assert not any(p.requires_grad for p in result.parameters())
    assert training.generator.training
    assert torch.equal(result.project.weight, training.generator.project.weight)
    training.step()
    assert not torch.equal(result.project.weight, training.generator.project.weight)


def test_guidance_teaches_the_generator() -> None:
    settings = GanSettings(batch_size=16, critic_steps=1, guidance_weight=50.0, learning_rate=5e-3)
    training = make(settings)
    latents, labels = torch.randn(32, 3), torch.arange(2).repeat(16)
    for _ in range(60):
        training.step()
    means = training.result(latents, labels).mean(dim=(1, 2, 3))
    assert means[labels == 1].mean() > means[labels == 0].mean() + 0.3
