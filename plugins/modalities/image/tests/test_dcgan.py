"""The DCGAN generator and its two critics: shapes, ranges, published layout, minibatch discrimination."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mi_image.dcgan import DcganGenerator, KedCritic, MinibatchDiscrimination, WganCritic

SIZES = (8, 16, 32, 64, 128, 256)


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def l1(first: list[float], second: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_generator_gives_canonical_images(size: int) -> None:
    generator = DcganGenerator(latent_dim=7, size=size, channels=1, width=2).eval()
    images = generator(seeded(3, 7))
    assert generator.latent_dim == 7
    assert images.shape == (3, 1, size, size)
    assert 0 <= images.min() < images.max() <= 1


def test_in_eval_mode_an_image_does_not_depend_on_its_batch() -> None:
    generator = DcganGenerator(latent_dim=7, size=32, width=2).eval()
    latents = seeded(3, 7)
    torch.testing.assert_close(generator(latents)[:1], generator(latents[:1]))


def test_generator_has_the_published_layout() -> None:
    with torch.device("meta"):
        paper, digits, small = DcganGenerator(), DcganGenerator(size=32, channels=1), DcganGenerator(size=16)
    shapes = [tuple(m.weight.shape) for m in paper.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert shapes == [(512, 256, 5, 5), (256, 128, 5, 5), (128, 64, 5, 5), (64, 3, 5, 5)]
    assert tuple(next(paper.project.parameters()).shape) == (8192, 100)
    shapes = [tuple(m.weight.shape) for m in digits.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert shapes == [(256, 128, 5, 5), (128, 64, 5, 5), (64, 1, 5, 5)]
    shapes = [tuple(m.weight.shape) for m in small.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert shapes == [(128, 64, 5, 5), (64, 3, 5, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_wgan_critic_scores_each_image_by_itself(size: int) -> None:
    critic = WganCritic(size, channels=1, width=2)  # in training mode: there is nothing that couples a batch
    images = torch.sigmoid(seeded(3, 1, size, size))
    scores = critic(images)
    assert scores.shape == (3,)
    torch.testing.assert_close(scores[:1], critic(images[:1]), rtol=1e-4, atol=1e-5)


def test_wgan_critic_has_the_published_layout() -> None:
    with torch.device("meta"):
        critic, small = WganCritic(), WganCritic(16)
    shapes = [tuple(m.weight.shape) for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(64, 3, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5), (512, 256, 5, 5), (1, 512, 4, 4)]
    shapes = [tuple(m.weight.shape) for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(64, 3, 5, 5), (128, 64, 5, 5), (1, 128, 4, 4)]


@pytest.mark.parametrize("size", SIZES)
def test_ked_critic_gives_features_and_logits(size: int) -> None:
    critic = KedCritic(5, size, channels=1, width=2, n_kernels=3, kernel_dim=4)
    features, logits = critic(torch.sigmoid(seeded(2, 1, size, size)))
    widest = {8: 2, 16: 4}.get(size, 8)
    assert features.shape == (2, critic.n_features) == (2, widest * 16)
    assert logits.shape == (2, 5)


def test_ked_critic_has_the_published_layout() -> None:
    with torch.device("meta"):
        critic = KedCritic(1000)
    shapes = [tuple(m.weight.shape) for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(64, 3, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5), (256, 256, 3, 3)]
    assert tuple(critic.discrimination.kernels.shape) == (4096, 64, 50)
    assert critic.head.in_features == 4096 + 64


def test_minibatch_discrimination_against_a_plain_loop() -> None:
    layer = MinibatchDiscrimination(6, n_kernels=3, kernel_dim=2).double()
    features = 0.3 * seeded(4, 6).double()
    result = layer(features)
    torch.testing.assert_close(result[:, :6], features)
    projected = [[(f[:, None] * layer.kernels[:, b]).sum(0).tolist() for b in range(3)] for f in features]
    for i in range(4):
        for b in range(3):
            others = (j for j in range(4) if j != i)
            expected = sum(math.exp(-l1(projected[i][b], projected[j][b])) for j in others)
            assert float(result[i, 6 + b].detach()) == pytest.approx(expected, rel=1e-10)


def test_a_batch_of_one_has_no_neighbours() -> None:
    layer = MinibatchDiscrimination(6, n_kernels=3, kernel_dim=2)
    assert not layer(seeded(1, 6))[:, 6:].any()


@pytest.mark.parametrize("build", [DcganGenerator, WganCritic, lambda size: KedCritic(5, size)])
def test_other_sizes_are_refused(build: type[DcganGenerator]) -> None:
    with pytest.raises(ValueError, match="resize the images"):
        build(size=48)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 7\)"):
        DcganGenerator(7, 32, width=2)(seeded(2, 8))
    for critic in (WganCritic(32, width=2), KedCritic(5, 32, width=2)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
            critic(seeded(2, 3, 64, 64))
