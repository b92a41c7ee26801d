"""The conditional GAN: shapes, range, published layout, independence of rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_image.conditional_gan import (
    ConditionalBatchNorm,
    ConditionalGenerator,
    DownBlock,
    ProjectionDiscriminator,
    UpBlock,
    block_widths,
    double,
    require_makeable,
)
from micore.errors import MiError


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_generator_gives_canonical_images(size: int, channels: int) -> None:
    generator = ConditionalGenerator(3, latent_dim=5, size=size, channels=channels, base=2).eval()
    images = generator(10 * seeded(4, 5), torch.tensor([0, 1, 2, 0]))
    assert images.shape == (4, channels, size, size)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_critic_scores_every_image(size: int) -> None:
    critic = ProjectionDiscriminator(3, size=size, channels=1, base=2)
    assert critic(torch.sigmoid(seeded(4, 1, size, size)), torch.tensor([0, 1, 2, 0])).shape == (4,)


def test_layout_at_64_pixels_is_the_published_one() -> None:
    assert block_widths(64, 64) == [1024, 512, 256, 128, 64]
    with torch.device("meta"):
        generator = ConditionalGenerator(1000)
    assert generator.project.weight.shape == (16384, 128)
    assert generator.paint.weight.shape == (3, 64, 1, 1)


def test_widths_of_other_sizes() -> None:
    assert block_widths(256, 64) == [1024, 512, 256, 128, 64, 64, 64]
    assert block_widths(16, 16) == [64, 32, 16]


@pytest.mark.parametrize("size", [0, 4, 28, 48, 33])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(MiError, match="resize"):
        block_widths(size, 8)


@pytest.mark.parametrize(("height", "width", "message"), [(16, 32, "square images, not 16x32"), (24, 24, "24x24")])
def test_images_that_it_cannot_make_are_refused(height: int, width: int, message: str) -> None:
    require_makeable(torch.zeros(1, 1, 16, 16), 8)
    with pytest.raises(MiError, match=message):
        require_makeable(torch.zeros(1, 1, height, width), 8)


def test_labels_matter_only_after_their_embedding_moved() -> None:
    norm = ConditionalBatchNorm(2, n_classes=2)
    maps = seeded(4, 2, 3, 3)
    labels = torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(norm(maps, labels), functional.batch_norm(maps, None, None, training=True))
    with torch.no_grad():
        norm.shift.weight[1] = 5
    moved = norm(maps, labels) - functional.batch_norm(maps, None, None, training=True)
    torch.testing.assert_close(moved.mean(dim=(1, 2, 3)), torch.tensor([0.0, 5, 0, 5]))


def test_shortcut_of_the_up_block_equals_resizing_first() -> None:
    block = UpBlock(3, 2, n_classes=1)
    maps = seeded(2, 3, 4, 4)
    torch.testing.assert_close(double(block.shortcut(maps)), block.shortcut(double(maps)))


def test_shortcut_of_the_down_block_equals_pooling_last() -> None:
    block = DownBlock(3, 2).eval()
    maps = seeded(2, 3, 4, 4)
    after, before = (
        functional.avg_pool2d(block.shortcut(maps), 2),
        block.shortcut(functional.avg_pool2d(maps, 2)),
    )
    torch.testing.assert_close(after, before)


def test_rows_are_independent_in_eval_mode() -> None:
    generator = ConditionalGenerator(3, latent_dim=5, size=16, channels=1, base=2).eval()
    critic = ProjectionDiscriminator(3, size=16, channels=1, base=2).eval()
    latents, labels = seeded(4, 5), torch.tensor([0, 1, 2, 0])
    images = generator(latents, labels)
    torch.testing.assert_close(generator(latents[1:2], labels[1:2]), images[1:2])
    torch.testing.assert_close(critic(images[1:2], labels[1:2]), critic(images, labels)[1:2])


def test_every_weight_of_the_critic_is_normalised() -> None:
    critic = ProjectionDiscriminator(3, size=16, channels=1, base=2)
    images, labels = torch.sigmoid(seeded(4, 1, 16, 16)), torch.tensor([0, 1, 2, 0])
    for _ in range(100):  # power iterations
        critic(images, labels)
    weights = [m.weight for m in critic.eval().modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
    assert len(weights) == 3 * 3 + 2
    for weight in weights:
        largest = torch.linalg.matrix_norm(weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.ones(()), rtol=1e-2, atol=0)


def test_the_critic_has_a_projection_head() -> None:
    critic = ProjectionDiscriminator(3, size=16, channels=1, base=2).eval()
    images = torch.sigmoid(seeded(1, 1, 16, 16))
    features = functional.relu(critic.blocks(images)).sum(dim=(2, 3))
    expected = critic.score(features).squeeze(1) + features @ critic.embedding.weight[2]
    torch.testing.assert_close(critic(images, torch.tensor([2])), expected)
