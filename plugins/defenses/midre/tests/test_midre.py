"""Area, shape and place of what is erased, what stands there, and that only training sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest, pearsonr
from torch import Tensor, nn

from mi_defense_midre.defense import RandomErasing, RandomErasingConfig, filling, random_squares
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.contracts import Defense
from micore.errors import ConfigError, ModelError
from micore.kit.training import TrainingBatch, predict
from micore.runtime import Runtime
from micore.testing.lab import holdout_accuracy, train_setting

CPU, IMAGES = Runtime(device=torch.device("cpu")), ImageModality()


def defense(**options: object) -> RandomErasing:
    return RandomErasing(make_config(RandomErasingConfig, options, "midre"))


def erased(inputs: Tensor, **options: object) -> Tensor:
    with CPU.seeded("erase"):
        return defense(**options).adapt_inputs(inputs, torch.zeros(len(inputs), dtype=torch.int64))


def squares(shape: tuple[int, ...], smallest: float, largest: float, seed: int = 0) -> np.ndarray:
    """Return the masks of so many samples, without the channel."""
    with Runtime(device=torch.device("cpu"), seed=seed).seeded("squares"):
        mask = random_squares(torch.zeros(shape[0], 1, *shape[1:]), smallest, largest)
    assert mask.shape == (shape[0], 1, *shape[1:])
    found: np.ndarray = mask[:, 0].numpy()
    return found


def box(mask: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return start and sides of the box around what a mask marks, after checking that all of it is marked."""
    places = np.argwhere(mask)
    start, end = places.min(axis=0), places.max(axis=0) + 1
    assert mask.sum() == np.prod(end - start), "what is erased is no box"
    return tuple(int(value) for value in start), tuple(int(value) for value in end - start)


# the square -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [0.4, 0.8])
def test_the_erased_share_is_uniform_in_its_range_and_square(largest: float) -> None:
    masks = squares((400, 64, 64), 0.1, largest)
    sides = np.array([box(mask)[1] for mask in masks])
    assert (sides[:, 0] == sides[:, 1]).all()
    slack = 1.01 / 64  # half a pixel on each side of the square, as a share of its sides
    shares = masks.mean(axis=(1, 2))
    assert shares.min() >= (np.sqrt(0.1) - slack / 2) ** 2
    assert shares.max() <= (np.sqrt(largest) + slack / 2) ** 2
    assert kstest((shares - 0.1) / (largest - 0.1), "uniform").pvalue > 0.01


def test_every_place_where_the_square_fits_is_as_likely() -> None:
    starts = np.array([box(mask)[0] for mask in squares((5000, 8, 8), 0.25, 0.25)])  # 4 px, at 5 x 5 places
    assert starts.min() == 0
    assert starts.max() == 4
    counts = np.bincount(starts[:, 0] * 5 + starts[:, 1], minlength=25)
    assert chisquare(counts).pvalue > 0.01


def test_area_row_and_column_are_drawn_independently() -> None:
    boxes = [box(mask) for mask in squares((1000, 64, 64), 0.1, 0.4)]
    starts, sides = (np.array(part) for part in zip(*boxes, strict=True))
    places = starts / (64 - sides)
    for one, other in ((places[:, 0], places[:, 1]), (places[:, 0], sides[:, 0]), (places[:, 1], sides[:, 0])):
        assert pearsonr(one, other).pvalue > 0.01


def test_every_sample_has_its_own_square_and_the_seed_decides() -> None:
    masks = squares((50, 32, 32), 0.1, 0.4)
    assert len({mask.tobytes() for mask in masks}) > 45
    assert (masks == squares((50, 32, 32), 0.1, 0.4)).all()
    assert (masks != squares((50, 32, 32), 0.1, 0.4, seed=1)).any()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(2, 20), min_size=1, max_size=3),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.integers(0, 10),
)
def test_some_of_every_sample_is_erased_and_some_is_left(sizes: list[int], one: float, other: float, seed: int) -> None:
    smallest, largest = sorted((one, other))
    for mask in squares((5, *sizes), smallest, largest, seed):
        start, sides = box(mask)
        assert len(set(sides)) == 1
        assert 1 <= sides[0] < min(sizes)
        assert all(0 <= begin <= size - sides[0] for begin, size in zip(start, sizes, strict=True))
        exact = [(area * np.prod(sizes)) ** (1 / len(sizes)) for area in (smallest, largest)]
        assert min(round(exact[0] - 1e-3), min(sizes) - 1) <= sides[0] <= max(1, round(exact[1] + 1e-3))


def test_a_waveform_loses_an_interval_as_a_signal_of_one_channel_does() -> None:
    waveforms = torch.arange(1.0, 401).repeat(6, 1)
    labels = torch.zeros(6, dtype=torch.int64)
    torch.manual_seed(0)
    found = defense().adapt_inputs(waveforms, labels)
    torch.manual_seed(0)
    assert torch.equal(found, defense().adapt_inputs(waveforms[:, None], labels)[:, 0])
    assert 0.05 < float((found != waveforms).float().mean()) < 0.45


def test_a_signal_loses_an_interval_of_the_share() -> None:
    masks = squares((200, 100), 0.1, 0.4)
    assert all(10 <= mask.sum() <= 40 for mask in masks)
    assert all(len(box(mask)[1]) == 1 for mask in masks)


# what stands there ----------------------------------------------------------------------------------------


def image_batch(channels: int = 3) -> Tensor:
    return torch.rand(6, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("fill", ["paper", "mean", "random"])
def test_the_rest_of_a_sample_stays_as_it_is(fill: str) -> None:
    inputs = image_batch()
    given_ = inputs.clone()
    found = erased(inputs, fill=fill)
    assert torch.equal(inputs, given_)
    assert found.dtype == inputs.dtype
    with CPU.seeded("erase"):
        mask = random_squares(inputs, 0.1, 0.4)
    changed = found != inputs
    assert torch.equal(changed, mask.expand_as(inputs))
    assert 0.1 < float(changed.double().mean()) < 0.4


def test_the_papers_constant_is_written_into_normalised_samples() -> None:
    inputs = image_batch()
    found = erased(inputs, fill="paper")
    for channel, value in enumerate((0.485, 0.456, 0.406)):
        values = found[:, channel][found[:, channel] != inputs[:, channel]]
        assert torch.equal(values, torch.full_like(values, value))
    grey = erased(image_batch(1), fill="paper")
    assert float(grey[grey != image_batch(1)].unique()) == pytest.approx((0.485 + 0.456 + 0.406) / 3)


def test_the_mean_is_that_of_each_channel_of_the_batch() -> None:
    inputs = image_batch()
    found, expected = erased(inputs, fill="mean"), inputs.numpy().astype(np.float64).mean(axis=(0, 2, 3))
    for channel in range(3):
        values = found[:, channel][found[:, channel] != inputs[:, channel]]
        assert float(values.unique()) == pytest.approx(expected[channel], abs=1e-6)


def test_noise_is_normal_and_new_everywhere() -> None:
    with CPU.seeded("noise"):
        noise = filling(torch.zeros(8, 3, 16, 16), "random").numpy().ravel()
    assert kstest(noise, "norm").pvalue > 0.01
    assert len(np.unique(noise)) > 6000


@pytest.mark.parametrize("fill", ["paper", "mean", "random"])
@pytest.mark.parametrize("shape", [(4, 2, 9), (4, 1, 6, 9), (4, 2, 5, 6, 7)])
def test_signals_volumes_and_half_precision_are_taken(shape: tuple[int, ...], fill: str) -> None:
    inputs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = erased(inputs, fill=fill)
    assert found.dtype == torch.bfloat16
    assert found.shape == inputs.shape
    assert (found != inputs).any(dim=1).flatten(1).any(dim=1).all()


# what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(4),
        torch.zeros(4, 3, 16, 16, dtype=torch.int64),
        torch.zeros(4, 3, 1, 16),
        ["a", "b"],
    ],
)
def test_inputs_without_places_are_refused(inputs: Tensor) -> None:
    with pytest.raises(ModelError, match="midre erases") as caught:
        defense().adapt_inputs(inputs, torch.zeros(4, dtype=torch.int64))
    assert caught.value.hint


@pytest.mark.parametrize(
    "options", [{"smallest": 0.5}, {"largest": 1.0}, {"smallest": 0.0}, {"fill": "black"}, {"largest": 0.05}]
)
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        defense(**options)


# in a training --------------------------------------------------------------------------------------------


class Watching(Defense):
    """Notes what a training step is given."""

    def __init__(self) -> None:
        super().__init__(None)
        self.seen: list[Tensor] = []

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        self.seen.append(batch.inputs)
        return task_loss()


def test_every_training_sample_is_erased_and_no_other() -> None:
    setting, watching = image_toy(), Watching()
    made, _ = train_setting(setting, IMAGES, CPU, "classifier", [defense(fill="paper"), watching])
    fill = np.float32((0.485 + 0.456 + 0.406) / 3)
    shares = torch.cat([(inputs == float(fill)).double().mean(dim=(1, 2, 3)) for inputs in watching.seen])
    assert len(shares) == setting.training.epochs * len(setting.dataset.split("private"))
    assert shares.min() >= (np.sqrt(0.1) - 0.5 / 16) ** 2
    assert shares.max() <= (np.sqrt(0.4) + 0.5 / 16) ** 2
    given_: list[Tensor] = []
    handle = made.module.register_forward_pre_hook(lambda _, inputs: given_.append(inputs[0]))
    held_out, adapter = setting.dataset.split("holdout"), IMAGES.adapter(setting.dataset.input)
    predict(made.module, held_out.take, len(held_out), adapter, CPU)
    handle.remove()
    assert torch.equal(given_[0], adapter(held_out.take(range(len(held_out)))))
    assert holdout_accuracy(setting, IMAGES, made.module, CPU) >= 0.9
