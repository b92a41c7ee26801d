"""Geometry of the alignment, on drawn dots instead of faces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mi_evaluator_face_descriptor.descriptor import CHIP_EYES, EYES, Point, chips, describe
from mi_evaluator_face_descriptor.network import FaceDescriptor
from micore.errors import DataError

Eyes = tuple[Point, Point]


def dots(points: Eyes, height: int, width: int) -> Tensor:
    """Draw two soft bright dots at fractions of the side, (1, 1, height, width)."""
    rows = (torch.arange(height) + 0.5).view(-1, 1)
    columns = (torch.arange(width) + 0.5).view(1, -1)
    radius = 0.02 * width
    picture = torch.zeros(height, width)
    for x, y in points:
        square = (rows - y * height) ** 2 + (columns - x * width) ** 2
        picture += torch.exp(-square / (2 * radius**2))
    return picture.clamp(0, 1)[None, None]


def bright_points(chip: Tensor) -> list[tuple[float, float]]:
    """Return the centres of brightness (x, y) of the left and right half of a (1, 3, S, S) chip."""
    picture = (chip[0, 0] - 0.05).clamp_min(0)
    middle = round((CHIP_EYES[0][0] + CHIP_EYES[1][0]) / 2)
    return [centre(picture[:, :middle], 0), centre(picture[:, middle:], middle)]


def centre(part: Tensor, offset: int) -> tuple[float, float]:
    weights = part / part.sum()
    rows, columns = torch.arange(part.shape[0]).float(), torch.arange(part.shape[1]).float()
    return (weights.sum(0) @ columns).item() + offset, (weights.sum(1) @ rows).item()


TURNED: Eyes = ((0.35, 0.3), (0.6, 0.45))


@pytest.mark.parametrize("eyes", [EYES, TURNED], ids=["upright", "turned"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (112, 112), (224, 224), (96, 64)])
def test_the_eyes_land_where_dlib_puts_them(eyes: Eyes, height: int, width: int) -> None:
    found = bright_points(chips(dots(eyes, height, width), eyes))
    for point, expected in zip(found, CHIP_EYES, strict=True):
        assert point == pytest.approx(expected, abs=0.3)


def test_what_lies_outside_repeats_the_edge() -> None:
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., -1, :] = 1.0  # the bottom row only
    chip = chips(picture)
    torch.testing.assert_close(chip[..., -20:, :], torch.ones(1, 3, 20, 150))
    assert chip[..., :100, :].max() < 0.01


def test_grey_is_repeated_and_values_stay_in_range() -> None:
    grey = (torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    chip = chips(grey)
    assert chip.shape == (3, 3, 150, 150)
    assert torch.equal(chip[:, 0], chip[:, 2])
    assert 0.0 <= chip.min() <= chip.max() <= 1.0


def test_a_chip_does_not_depend_on_its_batch() -> None:
    pictures = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(chips(pictures)[2:3], chips(pictures[2:3]))


def test_large_pictures_are_filtered_before_they_shrink() -> None:
    checkers = torch.zeros(1, 1, 448, 448)
    checkers[..., ::2, ::2] = checkers[..., 1::2, 1::2] = 1.0
    middle = chips(checkers)[..., 20:130, 20:130]
    assert (middle - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(
    "pictures",
    [
        torch.rand(3, 64, 64),
        torch.rand(1, 4, 64, 64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ],
)
def test_other_input_is_refused(pictures: Tensor) -> None:
    with pytest.raises(DataError, match="faces must be"):
        chips(pictures)


def test_eyes_in_one_point_are_refused() -> None:
    with pytest.raises(DataError, match="one point"):
        chips(torch.rand(1, 3, 64, 64), ((0.5, 0.5), (0.5, 0.5)))


def test_describe_works_in_batches() -> None:
    torch.manual_seed(0)
    network = FaceDescriptor()
    pictures = torch.rand(5, 3, 32, 32)
    in_pieces = describe(network, pictures, batch_size=2)
    assert in_pieces.shape == (5, 128)
    torch.testing.assert_close(in_pieces, describe(network, pictures, batch_size=5), rtol=1e-4, atol=1e-4)
    assert not in_pieces.requires_grad
    assert describe(network, pictures[:0]).shape == (0, 128)
