"""The look-alike search against known copies, near copies and a slow oracle."""

import math

import pytest
import torch

from mi_image.datasets.dataset import ImageDataset
from mi_image.datasets.pools import Pool
from mi_image.modality import ImageModality
from mi_image.overlap import perceptual_signs
from mi_image.splits import ImageSplit
from micore.runtime import Random


def smooth(n, seed, channels=1):
    """Make pictures with structure at several scales, uint8 (n, channels, 32, 32)."""
    noise = Random(seed).uniform((n, channels, 6, 6))
    large = torch.nn.functional.interpolate(noise, (32, 32), mode="bicubic")
    return (large.clamp(0, 1) * 255).round().to(torch.uint8)


def dataset_of(private, public, holdout=None):
    labels = torch.zeros(len(private), dtype=torch.int64)
    held = None if holdout is None else Pool(holdout, torch.zeros(len(holdout), dtype=torch.int64), ("a",))
    return ImageDataset(name="made", private=Pool(private, labels, ("a",)), holdout=held, public=ImageSplit(public))


def measure(*images):
    return ImageModality().overlap(dataset_of(*images))


def test_independent_pictures_do_not_overlap():
    found = measure(smooth(60, 0), smooth(80, 1), smooth(20, 2))
    assert found["private"]["n"] == 60
    assert (found["public"]["n"], found["holdout"]["n"]) == (80, 20)
    assert found["public"]["equal"] == found["public"]["near"] == found["holdout"]["near"] == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_and_near_copies_are_told_apart(channels):
    private, public = smooth(30, 0, channels), smooth(30, 1, channels)
    public[4] = private[9]
    public[7] = (private[12].float() * 0.9 + 8).to(torch.uint8)  # darker, less contrast
    found = measure(private, public)["public"]
    assert (found["equal"], found["near"]) == (1, 1)
    assert {(pair["index"], pair["private_index"]) for pair in found["examples"]} == {(4, 9), (7, 12)}


def test_examples_are_limited_but_counts_are_not():
    private = smooth(25, 0)
    found = measure(private, private.clone())["public"]
    assert found["equal"] == 25
    assert len(found["examples"]) == 10


def test_flat_pictures_are_equal_but_never_near():
    private = torch.full((1, 1, 32, 32), 10, dtype=torch.uint8)
    public = torch.stack([private[0], private[0] + 1])
    found = measure(private, public)["public"]
    assert (found["equal"], found["near"]) == (1, 0)


def test_data_without_public_split():
    dataset = ImageDataset(
        name="made",
        private=Pool(smooth(3, 0), torch.zeros(3, dtype=torch.int64), ("a",)),
        holdout=None,
        public=None,
    )
    assert set(ImageModality().overlap(dataset)) == {"hash", "max_distance", "private"}


def test_hash_agrees_with_a_slow_cosine_transform():
    image = smooth(1, 3)[0, 0].double() / 255
    frequencies = torch.zeros(8, 8, dtype=torch.float64)
    for row in range(8):
        for column in range(8):
            down = torch.tensor([math.cos(math.pi * (row + 1) * (2 * y + 1) / 64) for y in range(32)]).double()
            across = torch.tensor([math.cos(math.pi * (column + 1) * (2 * x + 1) / 64) for x in range(32)]).double()
            frequencies[row, column] = down @ image @ across
    middle = frequencies.flatten().sort().values[31:33].mean()
    expected = torch.where(frequencies.flatten() > middle, 1.0, -1.0)
    assert torch.equal(perceptual_signs(image.float()[None, None])[0], expected)
