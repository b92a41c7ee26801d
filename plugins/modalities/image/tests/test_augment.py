"""The differentiable augmentation: identity, ranges, independent rows, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mi_image.augment import Augmentation
from micore.runtime import Random

NOTHING = Augmentation(crop_area=1, flip=0, rotation=0, brightness=0, contrast=0)


def pictures(n: int = 4, channels: int = 1, size: int = 16) -> Tensor:
    return torch.rand((n, channels, size, size), generator=torch.Generator().manual_seed(0))


def numbers(n: int = 4) -> Tensor:
    return Augmentation().draw(Random(1), n)


def test_empty_ranges_change_nothing() -> None:
    torch.testing.assert_close(NOTHING.apply(pictures(), numbers()), pictures(), rtol=0, atol=0)


def test_a_warp_with_empty_numbers_changes_nothing() -> None:
    still = torch.tensor([[0.0, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.0]]).expand(4, -1)  # the middle of each range
    torch.testing.assert_close(Augmentation().apply(pictures(), still), pictures(), rtol=0, atol=1e-5)


def test_all_draws_have_one_size_so_that_settings_do_not_shift_the_stream() -> None:
    assert numbers(3).shape == NOTHING.draw(Random(1), 3).shape == (3, Augmentation.n_numbers)


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_range_stay(channels: int) -> None:
    wild = Augmentation(crop_area=0.3, rotation=90, brightness=0.9, contrast=0.9)
    changed = wild.apply(pictures(channels=channels), numbers())
    assert changed.shape == (4, channels, 16, 16)
    assert 0 <= changed.min() < changed.max() <= 1


def test_borders_are_mirrored_not_black() -> None:
    turned = Augmentation(flip=0, rotation=45, brightness=0, contrast=0).apply(torch.ones(4, 1, 16, 16), numbers())
    torch.testing.assert_close(turned, torch.ones(4, 1, 16, 16))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_mirrors_columns_or_never_happens(flip: float) -> None:
    only_flip = Augmentation(crop_area=1, flip=flip, rotation=0, brightness=0, contrast=0)
    expected = pictures().flip(3) if flip else pictures()
    torch.testing.assert_close(only_flip.apply(pictures(), numbers()), expected, rtol=0, atol=1e-5)


def test_rotation_by_a_right_angle() -> None:
    turn = torch.tensor([[0.0, 0.5, 0.5, 0.9, 1.0, 0.5, 0.5, 0.0]])
    quarter = Augmentation(crop_area=1, flip=0, rotation=90, brightness=0, contrast=0)
    turned = quarter.apply(pictures(1), turn)
    torch.testing.assert_close(turned, pictures(1).rot90(1, dims=(2, 3)), rtol=0, atol=1e-4)


def test_crop_takes_the_stated_part_of_the_area() -> None:
    corner = torch.tensor([[1.0, 0.0, 0.0, 0.9, 0.5, 0.5, 0.5, 0.0]])  # smallest crop, top left
    half = Augmentation(crop_area=0.25, flip=0, rotation=0, brightness=0, contrast=0)
    ramp = torch.linspace(1 / 32, 31 / 32, 16).expand(1, 1, 16, 16)
    expected = torch.linspace(1 / 64, 31 / 64, 16).expand(1, 1, 16, 16)
    inner = half.apply(ramp, corner)[..., 1:]  # the first column lies beyond the first pixel's centre
    torch.testing.assert_close(inner, expected[..., 1:], rtol=0, atol=1e-5)


def test_colours_change_in_the_stated_share_of_images() -> None:
    grey = torch.full((2000, 1, 2, 2), 0.5)
    half = Augmentation(crop_area=1, flip=0, rotation=0, contrast=0, colour_probability=0.5)
    changed = half.apply(grey, numbers(2000))[:, 0, 0, 0]
    assert 0.45 < (changed != 0.5).float().mean() < 0.55
    assert 0.4 <= changed.min() < 0.41
    assert 0.59 < changed.max() <= 0.6


def test_rows_are_independent() -> None:
    together = Augmentation().apply(pictures(), numbers())
    for row in range(4):
        alone = Augmentation().apply(pictures()[row : row + 1], numbers()[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-6)


def test_gradients_reach_the_images() -> None:
    images = pictures().requires_grad_(True)
    Augmentation().apply(images, numbers()).sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.5


def test_mixed_precision_does_not_round_where_pixels_come_from() -> None:
    exact = Augmentation().apply(pictures(size=64), numbers())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Augmentation().apply(pictures(size=64), numbers())
    torch.testing.assert_close(mixed, exact, rtol=0, atol=1e-5)
