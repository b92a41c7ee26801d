"""Training of KED-MI's GAN: losses against float64 formulas, resuming bit for bit, what a lone picture scores."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_image.dcgan import DcganGenerator, KedCritic
from mi_image.ked_training import (
    KedSettings,
    KedTraining,
    ked_loss,
    ked_state,
    lone_logits,
    matching_loss,
    restore_ked,
)
from micore.kit.generator_training import train_generator
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.counting import same

SMALL = KedSettings(latent_dim=3, width=2, n_kernels=2, kernel_dim=3, batch_size=4, critic_steps=2, iterations=3)
IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randn(10, 3, generator=torch.Generator().manual_seed(1)).softmax(dim=1)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(settings: KedSettings = SMALL, seed: int = 0, images: Tensor = IMAGES, labels: Tensor = LABELS) -> KedTraining:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = DcganGenerator(settings.latent_dim, images.shape[2], 1, settings.width)
        critic = KedCritic(labels.shape[1], images.shape[2], 1, settings.width, settings.n_kernels, settings.kernel_dim)
    return KedTraining(generator, critic, images, labels, Random(seed), settings)


# losses ---------------------------------------------------------------------------------------------------


def lse(row: list[float]) -> float:
    return math.log(sum(math.exp(value) for value in row))


def test_the_critics_loss_is_equation_1_and_2() -> None:
    labelled, real, generated = (seeded(5, 3, seed=seed) for seed in range(3))
    soft = seeded(5, 3, seed=9).softmax(dim=1)
    expected = 0.0
    for row in range(5):
        logs = [value - lse(labelled[row].tolist()) for value in labelled[row].tolist()]
        expected -= sum(share * log for share, log in zip(soft[row].tolist(), logs, strict=True)) / 5
        odds, fake = math.exp(lse(real[row].tolist())), math.exp(lse(generated[row].tolist()))
        expected -= 0.5 * (math.log(odds / (odds + 1)) + math.log(1 / (fake + 1))) / 5
    assert float(ked_loss(labelled, soft, real, generated)) == pytest.approx(expected, rel=1e-12)


def test_the_generators_loss_matches_features_and_lowers_entropy() -> None:
    generated, real, logits = seeded(4, 6), seeded(4, 6, seed=1), seeded(4, 3, seed=2)
    gap = sum(abs(a - b) for a, b in zip(generated.mean(0).tolist(), real.mean(0).tolist(), strict=True)) / 6
    shares = logits.softmax(dim=1).tolist()
    entropy = -sum(share * math.log(share) for row in shares for share in row) / 4
    assert float(matching_loss(generated, real, logits, 0.3)) == pytest.approx(gap + 0.3 * entropy, rel=1e-12)


def test_lone_logits_are_those_of_a_batch_of_one() -> None:
    critic = make().critic.eval()
    scores = lone_logits(critic, IMAGES)
    alone = torch.cat([critic(image[None])[1] for image in IMAGES])
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        critic.discrimination.kernels.zero_()  # now all pictures of a batch are as near as can be
    assert not torch.allclose(critic(IMAGES)[1], scores, atol=1e-3)
    torch.testing.assert_close(lone_logits(critic, IMAGES), scores)


# training -------------------------------------------------------------------------------------------------


def test_training_moves_both_networks_and_stays_finite() -> None:
    training = make()
    before = [p.clone() for network in (training.generator, training.critic) for p in network.parameters()]
    losses = training.step()
    after = [p for network in (training.generator, training.critic) for p in network.parameters()]
    assert all(torch.isfinite(value) for value in losses.values())
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert sum(moved) > 0.7 * len(moved)  # biases before a normalisation have no effect


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.get_rng_state()
    first, second = make(), make()
    first.step()
    torch.rand(3)
    second.step()
    torch.set_rng_state(before)
    assert same(first.state(), second.state())


def test_resuming_equals_an_uninterrupted_training() -> None:
    whole = make()
    for _ in range(3):
        whole.step()
    killed = make()
    killed.step()
    saved = killed.state()
    killed.step()  # what happens after the snapshot must not change it
    resumed = make(seed=1)
    resumed.load(saved)
    assert resumed.iteration == 1
    for _ in range(2):
        resumed.step()
    assert same(resumed.state(), whole.state())


def test_it_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    runtime = Runtime.create("cpu", checkpoints=Checkpoints(tmp_path / "state.safetensors", interval_s=0))
    train_generator(make(), 2, runtime, "training")
    resumed, whole = make(seed=1), make()
    train_generator(resumed, 3, runtime, "training", runtime.checkpoints.load())
    train_generator(whole, 3, Runtime.create("cpu"), "training")
    assert same(resumed.state(), whole.state())


def test_bytes_are_pictures_too() -> None:
    counts = (IMAGES * 255).round()
    first, second = make(images=counts / 255), make(images=counts.to(torch.uint8))
    assert torch.equal(first.step()["critic"], second.step()["critic"])


def test_state_restores_what_was_trained() -> None:
    runtime = Runtime.create("cpu", seed=3)
    before = torch.get_rng_state()
    state: dict[str, Any] = ked_state(IMAGES, LABELS, SMALL, runtime)
    assert same(state, ked_state(IMAGES, LABELS, SMALL, runtime))
    generator, critic = restore_ked(state, runtime)
    assert torch.equal(before, torch.get_rng_state())
    assert same(generator.state_dict(), state["generator"])
    assert same(critic.state_dict(), state["critic"])
    for network in (generator, critic):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    assert generator(torch.zeros(2, 3)).shape == (2, 1, 8, 8)


def test_the_critic_learns_the_soft_labels_and_what_is_real() -> None:
    """Pictures that are bright on the left are class 0 with 0.9, those on the right class 1."""
    right = torch.arange(40) % 2
    ramp = torch.linspace(0, 1, 8).expand(1, 8, 8)
    images = torch.where(right.bool().view(-1, 1, 1, 1), ramp, 1 - ramp)
    images = 0.7 * images + 0.3 * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    labels = torch.stack([0.9 - 0.8 * right, 0.1 + 0.8 * right], dim=1)
    settings = replace(SMALL, width=8, batch_size=16, critic_steps=1, learning_rate=5e-3)
    training = make(settings, images=images, labels=labels)
    for _ in range(30):
        training._step_critic()
    answers = lone_logits(training.critic, images)
    assert (answers.argmax(dim=1) == right).float().mean() > 0.9
    share = answers.softmax(dim=1).gather(1, right[:, None]).mean()
    assert 0.75 < float(share.detach()) < 0.97
    generated = training.generator(training.rng.normal((40, 3)))
    assert answers.logsumexp(dim=1).mean() > lone_logits(training.critic, generated).logsumexp(dim=1).mean() + 1


def test_the_generator_comes_to_match_the_critics_features() -> None:
    training = make(replace(SMALL, width=8, batch_size=32, learning_rate=5e-3))
    losses = [training._step_generator() for _ in range(20)]
    assert torch.stack(losses[-5:]).mean() < torch.stack(losses[:5]).mean()
