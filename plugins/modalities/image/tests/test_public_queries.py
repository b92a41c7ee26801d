"""Public images and views that a target is asked about, its answers, and answers raised to a class."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_image.public_queries import BATCH, PUBLIC_FIELDS, PublicQueryConfig, asked, raised
from mi_image.splits import ImageSplit
from micore.errors import BudgetExceeded, DataError
from micore.runtime import Checkpoints, Runtime

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=4)
PUBLIC = ImageSplit((torch.arange(10 * 64) % 251).to(torch.uint8).view(10, 1, 8, 8))
EVERY = PUBLIC.take(range(10))
VIEWS = {"view_area": 0.5, "view_flip": 0.5, "view_rotation": 180.0}

# images -------------------------------------------------------------------------------------------------------


def test_by_default_each_image_is_asked_about_once():
    config = PublicQueryConfig()
    assert config.public_queries(10) == 10
    assert torch.equal(config.public_images(PUBLIC, CPU, "x"), EVERY)
    assert set(PublicQueryConfig.model_fields) == PUBLIC_FIELDS


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(1, 50))
def test_a_limit_is_kept_and_spread_over_the_data(views, limit):
    config = PublicQueryConfig(views=views, asked=limit)
    images = config.public_images(PUBLIC, CPU, "x")
    assert len(images) == config.public_queries(10) == min(limit, 10 * (1 + views))
    rows = [int((image == EVERY).flatten(1).all(dim=1).nonzero()[0]) for image in images]
    counts = torch.tensor(rows).bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    if limit < 10:
        gaps = torch.tensor(rows).diff()
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_views_follow_the_images_and_are_others():
    images = PublicQueryConfig(views=2, **VIEWS).public_images(PUBLIC, CPU, "x")
    assert torch.equal(images[:10], EVERY)
    assert images.shape == (30, 1, 8, 8)
    assert not any(torch.equal(images[row], images[row % 10]) for row in range(10, 30))
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images, PublicQueryConfig(views=2, **VIEWS).public_images(PUBLIC, CPU, "x"))


def test_views_of_no_change_are_the_images():
    images = PublicQueryConfig(views=1).public_images(PUBLIC, CPU, "x")
    assert torch.equal(images[10:], EVERY)


def test_missing_images_are_told():
    for nothing in (None, ImageSplit(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))):
        with pytest.raises(DataError, match="this-attack needs public images"):
            PublicQueryConfig().public_images(nothing, CPU, "this-attack")


# answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, BATCH, 2 * BATCH + 5])
def test_every_image_is_asked_about_once(n):
    images, seen = torch.arange(n).float().view(n, 1, 1, 1), []

    def ask(batch):
        seen.extend(batch.flatten().tolist())
        return batch.flatten(1) * 2

    assert torch.equal(asked(ask, images, CPU), images.flatten(1) * 2)
    assert seen == list(range(n))


def test_a_kill_repeats_no_question(tmp_path: Path):
    n, seen = 2 * BATCH + 5, []

    def ask(batch):
        if len(seen) == 2:
            seen.append(0)
            raise BudgetExceeded("spent")
        seen.append(len(batch))
        return batch.flatten()

    images = torch.arange(n).float().view(n, 1, 1, 1)
    runtime = CPU.with_checkpoints(Checkpoints(tmp_path / "answers.safetensors", interval_s=0.0))
    with pytest.raises(BudgetExceeded):
        asked(ask, images, runtime)
    assert torch.equal(asked(ask, images, runtime), torch.arange(n).float())
    assert seen == [BATCH, BATCH, 0, 5]


# raised answers -----------------------------------------------------------------------------------------------

rows = st.lists(st.floats(0.001, 1), min_size=4, max_size=4).map(lambda row: torch.tensor([row]) / sum(row))


@settings(deadline=None)
@given(rows, st.integers(0, 3), st.floats(0.1, 0.999), st.booleans())
def test_raised_answers_are_distributions_with_the_same_proportions(row, label, level, as_tensor):
    changed = raised(row, torch.tensor([label]), torch.tensor([level]) if as_tensor else level)
    assert float(changed.sum()) == pytest.approx(1, abs=1e-5)
    assert float(changed[0, label]) >= level - 1e-6
    if float(row[0, label]) >= level:
        assert torch.equal(changed, row)
    kept = [index for index in range(4) if index != label]
    torch.testing.assert_close(
        changed[0, kept] * row[0, kept].sum(), row[0, kept] * changed[0, kept].sum(), rtol=1e-3, atol=1e-6
    )


def test_every_row_has_its_own_confidence():
    row = torch.tensor([[0.5, 0.3, 0.2]]).repeat(2, 1)
    changed = raised(row, torch.tensor([0, 1]), torch.tensor([0.9, 0.65]))
    torch.testing.assert_close(changed, torch.tensor([[0.9, 0.06, 0.04], [0.25, 0.65, 0.1]]))


def test_answers_of_zeros_stay_finite():
    answers = torch.tensor([[1.0, 0.0, 0.0], [0.98, 0.0, 0.0], [0.0, 0.0, 1.0]])
    changed = raised(answers, torch.tensor([0, 0, 1]), 0.99)
    torch.testing.assert_close(changed, torch.tensor([[1.0, 0.0, 0.0], [0.99, 0.0, 0.0], [0.0, 0.99, 0.01]]))
