"""Random crops against a reference that samples pixel by pixel, and the target's mean answer over views."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mi_image.crops import RandomCrop, final_views, mean_confidences, search_views, view_numbers
from micore.contracts import Case
from micore.runtime import Random, Runtime
from micore.threat import Budget, Ledger, Spending

CPU = Runtime(device=torch.device("cpu"), tile=4)
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(3)]


def ramp(channels: int = 1, side: int = 12) -> Tensor:
    """An image whose value at (x, y) in [-1, 1]^2 is linear in x and y, so that bilinear sampling is exact."""
    centres = (2 * torch.arange(side) + 1) / side - 1
    values = 0.5 + 0.2 * centres[None, :] + 0.1 * centres[:, None]
    return values.expand(1, channels, side, side).clone()


def seen_part(image: Tensor) -> tuple[float, float, float]:
    """Read width and height of the crop of `ramp` that a view shows, and the ramp's value in its middle.

    Only middle pixels are read: near the border a view samples mirrored pixels.
    """
    middle, side = image.shape[-1] // 2, image.shape[-1]
    four = image[0, 0, middle - 1 : middle + 1, middle - 1 : middle + 1].double()
    across, down = four.diff(dim=1).mean(), four.diff(dim=0).mean()
    return float(across * side / 0.4), float(down * side / 0.2), float(four.mean())


@given(
    area=st.floats(0, 0.999), ratio=st.floats(0, 0.999), right=st.floats(0, 0.999), down=st.floats(0, 0.999)
)  # fmt: skip
def test_a_crop_has_the_drawn_area_and_ratio_and_lies_inside(
    area: float, ratio: float, right: float, down: float
) -> None:
    views = RandomCrop(crop_area=0.5, crop_area_most=0.8, aspect=1.2, flip=0.0)
    seen = views.apply(ramp(), torch.tensor([[area, ratio, right, down, 0.0]]))
    width, height, middle = seen_part(seen)
    assert width * height == pytest.approx(0.5 + 0.3 * area, rel=1e-3)
    assert width / height == pytest.approx(1.2 ** (2 * ratio - 1), rel=1e-3)
    place = 0.5 + 0.2 * (1 - width) * (2 * right - 1) + 0.1 * (1 - height) * (2 * down - 1)
    assert middle == pytest.approx(place, abs=1e-4)


def test_a_view_wider_than_the_image_is_cut_to_its_side() -> None:
    views = RandomCrop(crop_area=0.98, crop_area_most=0.98, aspect=1.2, flip=0.0)
    width, height, _ = seen_part(views.apply(ramp(), torch.tensor([[0, 1.0, 0.3, 0.5, 0]])))
    assert width == pytest.approx(1, rel=1e-4)
    assert height == pytest.approx(math.sqrt(0.98 / 1.2), rel=1e-3)


def test_square_crops_equal_an_interpolated_crop() -> None:
    """A quarter of the area at the upper left corner is the upper left quadrant, resized."""
    images = Random(0).uniform((2, 3, 8, 8))
    views = RandomCrop(crop_area=0.25, crop_area_most=0.25, flip=0.0)
    seen = views.apply(images, torch.zeros(2, 5))
    grid = (torch.arange(8) + 0.5) / 2 - 0.5
    wanted = functional.grid_sample(
        images,
        torch.stack(torch.meshgrid((2 * grid + 1) / 8 - 1, (2 * grid + 1) / 8 - 1, indexing="xy"), dim=-1).expand(
            2, -1, -1, -1
        ),
        align_corners=False, padding_mode="reflection",
    )  # fmt: skip
    torch.testing.assert_close(seen, wanted)


def test_mirror_images_come_as_often_as_they_should() -> None:
    views, n = final_views(0.5), 400
    numbers = views.draw(Random(1), n)
    seen = views.apply(ramp().expand(n, -1, -1, -1), numbers)
    mirrored = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
    assert torch.equal(mirrored, numbers[:, 4] < 0.5)
    assert not (final_views(0.0).apply(ramp(), numbers[:1])[0, 0, 0].diff() < 0).any()


def test_whole_crops_are_the_image_itself() -> None:
    images = Random(0).uniform((2, 1, 8, 8))
    assert search_views(1.0).apply(images, torch.rand(2, 5, generator=torch.Generator().manual_seed(0))) is images


# mean confidence ------------------------------------------------------------------------------------------


@dataclass
class Brightness:
    """A target of three classes, white box: each logit is the mean of one third of the image's columns."""

    ledger: Ledger = field(default_factory=Ledger)
    batches: list[int] = field(default_factory=list)

    def module(self, images: Tensor) -> Tensor:
        self.ledger.charge(queries=len(images))
        self.batches.append(len(images))
        return images.mean(dim=(1, 2)).unflatten(1, (3, -1)).mean(dim=2) * 9


def rows(restarts: int) -> tuple[Tensor, Tensor, list[str]]:
    labels = torch.tensor([case.label for case in CASES for _ in range(restarts)])
    return Random(5).uniform((len(labels), 1, 12, 12)), labels, [case.id for case in CASES for _ in range(restarts)]


def test_it_is_the_mean_probability_over_the_rows_own_views() -> None:
    target, views, (images, labels, owners) = Brightness(), final_views(0.5), rows(2)
    numbers = view_numbers(CASES, 2, 10, views, CPU)
    scores, enough = mean_confidences(target, images, labels, numbers, views, owners, CPU)  # type: ignore[arg-type]
    assert enough
    for row in range(len(labels)):
        seen = views.apply(images[row].expand(10, -1, -1, -1), numbers[row])
        wanted = Brightness().module(seen).double().softmax(dim=1)[:, labels[row]].mean()
        assert float(scores[row]) == pytest.approx(float(wanted), abs=1e-6)
    assert target.ledger.cases == {case.id: Spending(queries=20) for case in CASES}
    assert set(target.batches) == {8, 16}  # four views of a tile at once, and the two that are left


def test_views_of_a_row_depend_on_no_other_row() -> None:
    views = final_views(0.0)
    together = view_numbers(CASES, 2, 3, views, CPU)
    assert torch.equal(view_numbers(CASES[1:2], 2, 3, views, CPU), together[2:4])
    assert len(together.flatten(1).unique(dim=0)) == len(together)


def test_without_views_the_image_itself_is_looked_at() -> None:
    target, views, (images, labels, owners) = Brightness(), final_views(0.5), rows(1)
    numbers = view_numbers(CASES, 1, 0, views, CPU)
    scores, _ = mean_confidences(target, images, labels, numbers, views, owners, CPU)  # type: ignore[arg-type]
    wanted = Brightness().module(images).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(scores, wanted)
    assert target.ledger.total.queries == 3


def test_a_spent_budget_leaves_zeros() -> None:
    target, views, (images, labels, owners) = Brightness(Ledger(Budget(queries=25))), final_views(0.5), rows(2)
    numbers = view_numbers(CASES, 2, 5, views, CPU)
    scores, enough = mean_confidences(target, images, labels, numbers, views, owners, CPU)  # type: ignore[arg-type]
    assert not enough
    assert (scores[:4] > 0).all()
    assert (scores[4:] == 0).all()
