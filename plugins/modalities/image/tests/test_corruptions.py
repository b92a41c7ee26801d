"""What is hidden, what stays, and that a row depends on its own numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from mi_image.corruptions import (
    BLUR,
    CORRUPTIONS,
    FILL,
    KINDS,
    EvidenceKind,
    MaskedImage,
    blur,
    corrupt_case,
    fill,
    find_corruption,
    paste,
    squared_distances,
    stack_evidence,
)
from micore.contracts import Case, Config
from micore.errors import UsageError
from micore.runtime import Random
from micore.testing.devices import pretend_accelerator

MASKING = [kind for kind in KINDS if CORRUPTIONS[kind].soften is None]


def images(n=3, channels=3, height=16, width=16, seed=0):
    return Random(seed).uniform((n, channels, height, width))


def corrupted(kind, given, seed=1):
    corruption = CORRUPTIONS[kind]
    return corruption.apply(given, corruption.draw(Random(seed), len(given)))


@pytest.mark.parametrize("kind", MASKING)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 22), (64, 64)])
def test_visible_pixels_stay_and_hidden_ones_are_grey(kind, height, width):
    given = images(height=height, width=width)
    found, masks = corrupted(kind, given)
    assert masks.shape == (3, 1, height, width)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    hidden = masks.expand_as(given) == 1
    assert torch.equal(found[~hidden], given[~hidden])
    assert found[hidden].unique().tolist() == [FILL]


@pytest.mark.parametrize(("kind", "share"), [("centre", 0.25), ("bottom", 0.5), ("scattered", 0.5)])
@pytest.mark.parametrize("side", [16, 28, 64])
def test_a_part_of_the_image_is_hidden(kind, share, side):
    _, masks = corrupted(kind, images(height=side, width=side))
    assert masks.mean(dim=(1, 2, 3)).tolist() == pytest.approx([share] * 3)


def test_centre_and_bottom_are_where_they_should_be():
    _, centre = corrupted("centre", images(1))
    rows, columns = centre[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 4, 11)
    _, bottom = corrupted("bottom", images(1))
    assert torch.equal(bottom[0, 0].mean(dim=1), (torch.arange(16) >= 8).float())


def test_scattered_patches_are_others_for_other_numbers():
    _, masks = corrupted("scattered", images(40))
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 40
    assert masks.mean(dim=0).min() > 0.2  # every place is hidden in some images
    assert masks.mean(dim=0).max() < 0.8


def test_blur_is_a_strong_gaussian_and_marks_everything():
    given = images(2, height=64, width=64)
    found, masks = corrupted("blur", given)
    assert masks.min() == 1
    sigma = BLUR * 64
    smooth = np.stack([[gaussian_filter(channel, sigma, mode="constant", truncate=8) for channel in image]
                       for image in given.double().numpy()])  # fmt: skip
    weight = gaussian_filter(np.ones((64, 64)), sigma, mode="constant", truncate=8)  # border: weights add up to 1
    np.testing.assert_allclose(found.numpy(), smooth / weight, atol=1e-4)
    assert found.std(dim=(2, 3)).max() < 0.3 * given.std(dim=(2, 3)).min()
    assert torch.equal(blur(torch.full((1, 1, 9, 9), 0.25)).round(decimals=5), torch.full((1, 1, 9, 9), 0.25))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_no_other(kind):
    given, numbers = images(5), CORRUPTIONS[kind].draw(Random(3), 5)
    together, masks = CORRUPTIONS[kind].apply(given, numbers)
    for row in range(5):
        alone, mask = CORRUPTIONS[kind].apply(given[row : row + 1], numbers[row : row + 1])
        assert torch.equal(mask[0], masks[row])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_devices_are_not_mixed(kind):
    with pretend_accelerator() as device:
        found, masks = CORRUPTIONS[kind].apply(
            images().to(device), CORRUPTIONS[kind].draw(Random(0, torch.device(device)), 3)
        )
        assert found.device == masks.device == device
        assert fill(found, masks, torch.tensor([0.1, 0.2, 0.3], device=device)).device == device


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_follows_from_the_case_id(kind):
    one, two, other = (corrupt_case(images(1)[0], kind, name) for name in ("image-1", "image-1", "image-2"))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.mask, two.mask)
    assert (one.image.shape, one.mask.shape, one.kind) == ((3, 16, 16), (1, 16, 16), kind)
    assert torch.equal(one.mask, other.mask) == (kind != "scattered")


def test_paste_and_fill_touch_hidden_pixels_only():
    given, completions = images(seed=1), images(seed=2).requires_grad_(True)
    evidence, masks = corrupted("centre", given)
    pasted = paste(completions, evidence, masks)
    hidden = masks.expand_as(given) == 1
    assert torch.equal(pasted[hidden], completions[hidden])
    assert torch.equal(pasted[~hidden], given[~hidden])
    (slope,) = torch.autograd.grad(pasted.sum(), completions)
    assert torch.equal(slope, masks.expand_as(slope))
    colour = torch.tensor([0.1, 0.2, 0.3])
    painted = fill(evidence, masks, colour)
    assert torch.equal(painted[~hidden], given[~hidden])
    assert torch.equal(painted[:, :, 8, 8], colour.expand(3, 3))
    assert fill(evidence, masks, 0.0)[hidden].sum() == 0


def cases(*kinds):
    return [
        Case(id=f"image-{row}", goal="instance", evidence=corrupt_case(images(1, seed=row)[0], kind, f"image-{row}"))
        for row, kind in enumerate(kinds)
    ]


def test_evidence_is_stacked_and_must_be_of_one_kind():
    held, masks = stack_evidence(cases("bottom", "bottom"), "bottom", torch.device("cpu"))
    assert (held.shape, masks.shape) == ((2, 3, 16, 16), (2, 1, 16, 16))
    with pytest.raises(UsageError, match="prepared for evidence 'centre'; the cases hold bottom"):
        stack_evidence(cases("centre", "bottom"), "centre", torch.device("cpu"))
    with pytest.raises(UsageError, match="masked images"):
        stack_evidence([Case(id="class-0", goal="class", label=0)], "centre", torch.device("cpu"))


def test_unknown_kinds_are_named():
    with pytest.raises(UsageError, match="'sepia' is no kind of evidence; there are centre, bottom"):
        find_corruption("sepia")
    assert find_corruption(None).kind == "centre"

    class Settings(Config):
        evidence: EvidenceKind = "centre"

    assert Settings(evidence="blur").evidence == "blur"
    with pytest.raises(ValidationError, match="no kind of evidence"):
        Settings(evidence="sepia")


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000))
def test_distances_compare_what_is_seen(kind, seed):
    """Against a loop that corrupts every public image in the way of the case."""
    public, corruption = images(4, seed=seed, height=8, width=8), CORRUPTIONS[kind]
    numbers = corruption.draw(Random(seed + 1), 2)
    found, masks = corruption.apply(images(2, seed=seed + 2, height=8, width=8), numbers)
    evidence = [MaskedImage(kind=kind, image=image, mask=mask) for image, mask in zip(found, masks, strict=True)]
    for column in range(2):
        seen, _ = corruption.apply(public, numbers[column : column + 1].expand(4, -1))
        expected = (seen.double() - evidence[column].image.double()).square().sum(dim=(1, 2, 3))
        distances = squared_distances(public, evidence, corruption)[:, column]
        np.testing.assert_allclose(distances, expected, rtol=1e-6, atol=1e-9)
