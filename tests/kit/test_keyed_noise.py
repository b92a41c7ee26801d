"""Keyed noise against a plain-integer splitmix64, scipy's distributions, and what defenses need of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from micore.errors import ModelError
from micore.kit.keyed_noise import (
    KeyedNoise,
    block_side,
    draw_key,
    gaussian,
    laplace,
    sample_codes,
    sample_hashes,
    uniforms,
)
from micore.testing.counting import differences, global_streams
from micore.testing.devices import pretend_accelerator

WORD = 1 << 64
KEY = 0x1234_5678_9ABC_DEF0


def splitmix(state: int, n: int) -> list[int]:
    """Return the first n outputs of splitmix64 in Python's whole numbers."""
    found = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        found.append(z ^ (z >> 31))
    return found


def noise(*, fresh: bool = False, levels: int = 256, seed: int = 0) -> KeyedNoise:
    made = KeyedNoise(fresh=fresh, levels=levels)
    torch.manual_seed(seed)
    made.draw_key()
    return made


def images(n: int, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_oracle_is_splitmix64() -> None:
    assert splitmix(1234567, 2) == [6457827717110365317, 3203168211198807973]  # widely published values


@pytest.mark.parametrize("seed", [0, 1, 1234567, -1, -(1 << 63), (1 << 63) - 1])
def test_uniforms_are_the_upper_bits_of_splitmix64(seed: int) -> None:
    found = uniforms(torch.tensor([seed]), 50)[0]
    expected = [((number >> 41) + 0.5) / (1 << 23) for number in splitmix(seed % WORD, 50)]
    assert found.dtype == torch.float32
    assert found.tolist() == expected


def test_uniforms_are_uniform_within_and_across_samples() -> None:
    found = uniforms(sample_hashes(torch.arange(400)[:, None], KEY), 50)
    for row in (found.flatten(), found[:, 0], found[:, 49]):
        assert stats.kstest(row.numpy(), "uniform").pvalue > 0.001
    assert 0 < float(found.min()) < float(found.max()) < 1
    correlation = np.corrcoef(found.numpy().T)
    assert np.abs(correlation - np.eye(50)).max() < 0.25  # 1225 pairs, standard deviation 0.05


def test_gaussian_and_laplace_are_those_of_scipy() -> None:
    numbers = uniforms(torch.tensor([3]), 2000)
    exact = numbers.double().numpy()
    np.testing.assert_allclose(gaussian(numbers).numpy(), stats.norm.ppf(exact), atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(laplace(numbers).numpy(), stats.laplace.ppf(exact), atol=1e-5, rtol=1e-4)
    ends = torch.tensor([0.5 / 2**23, 1 - 0.5 / 2**23])
    assert torch.isfinite(gaussian(ends)).all()
    assert torch.isfinite(laplace(ends)).all()


# what the numbers depend on -------------------------------------------------------------------------------


def test_the_same_sample_gets_the_same_numbers_in_any_company() -> None:
    asked, keyed = images(9), noise()
    scores = torch.full((9, 4), 0.25)
    together = keyed.uniforms(asked, scores, 4)
    assert torch.equal(together, keyed.uniforms(asked, scores, 4))
    for row in range(9):
        assert torch.equal(together[row : row + 1], keyed.uniforms(asked[row : row + 1], scores[:1], 4))
    assert len({tuple(row) for row in together.tolist()}) == 9


def test_nearly_the_same_pictures_get_the_same_numbers() -> None:
    asked, keyed = images(400, 64), noise()
    moved = asked + 1e-6 * torch.randn(asked.shape, generator=torch.Generator().manual_seed(1))
    scores = torch.full((400, 4), 0.25)
    before, after = keyed.uniforms(asked, scores, 4), keyed.uniforms(moved.clamp(0, 1), scores, 4)
    assert float((before == after).all(dim=1).double().mean()) > 0.97
    changed = keyed.uniforms((asked + 0.02).clamp(0, 1), scores, 4)
    assert not (before == changed).all(dim=1).any()


def test_flat_pictures_are_not_on_the_edge_of_a_step() -> None:
    """Black, white and 8-bit grey must survive rounding: the steps' offsets are none of them."""
    grey = (torch.arange(256) / 255)[:, None, None, None].expand(256, 1, 64, 64)
    codes = sample_codes(grey, torch.zeros(256, 2), KEY)
    again = sample_codes(grey * (1 - 1e-6), torch.zeros(256, 2), KEY)
    assert float((codes == again).double().mean()) > 0.99
    assert len(codes.unique(dim=0)) == 256


def test_fewer_levels_make_more_samples_share_their_numbers() -> None:
    asked = images(50)
    moved = (asked + 0.002).clamp(0, 1)
    scores = torch.full((50, 4), 0.25)
    shared = []
    for levels in (256, 2):
        keyed = noise(levels=levels)
        pairs = keyed.uniforms(asked, scores, 1) == keyed.uniforms(moved, scores, 1)
        shared.append(float(pairs.double().mean()))
    assert shared[0] < 0.1 < shared[1]


@pytest.mark.parametrize(("side", "block"), [(4, 1), (8, 1), (16, 2), (28, 3), (32, 4), (64, 8), (224, 8)])
def test_blocks_grow_with_the_picture_up_to_eight(side: int, block: int) -> None:
    assert block_side(side, side) == block
    codes = sample_codes(images(2, side), torch.zeros(2, 2), KEY)
    assert codes.shape == (2, 3 * (-(-side // block)) ** 2)


def test_the_key_decides_and_is_drawn_from_the_seed() -> None:
    asked, scores = images(3), torch.full((3, 4), 0.25)
    first, same, other = (noise(seed=seed).uniforms(asked, scores, 4) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not (first == other).any()
    torch.manual_seed(0)
    keys = {draw_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(0 <= key < 1 << 63 for key in keys)


def test_where_a_value_stands_matters() -> None:
    codes = torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 4], [1, 2, 3]])
    hashes = sample_hashes(codes, KEY).tolist()
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]
    assert len(set(sample_hashes(torch.zeros(1, 3, dtype=torch.int64), KEY).tolist() + hashes)) == 4


def test_texts_are_told_apart_by_what_they_say() -> None:
    """Their scores differ a little with the batch, and not with case, width and spaces: neither may count."""
    keyed, texts = noise(), ["Call  Ann\n", "call ann", "\uff23all Ann", "call Anna", "annc all"]
    found = keyed.uniforms(texts, torch.rand(5, 2), 2)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert len(found.unique(dim=0)) == 3
    assert torch.equal(keyed.uniforms(tuple(texts[3:4]), torch.rand(1, 2), 2), found[3:4])
    assert not torch.equal(noise(seed=1).uniforms(texts, torch.rand(5, 2), 2), found)
    assert keyed.uniforms(["", "\ud800"], torch.rand(2, 2), 2).isfinite().all()


def test_samples_that_are_neither_tensors_nor_texts_are_told_apart_by_their_scores() -> None:
    keyed = noise()
    scores = torch.tensor([[0.1, 0.9], [0.4, 0.6], [0.1, 0.9]])
    found = keyed.uniforms([("a",), ("b",), ("c",)], scores, 2)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    "asked",
    [torch.randint(99, (5, 7)), torch.rand(5, 7), torch.rand(5, 1, 30), torch.rand(5), torch.rand(5, 7) > 0.5],
    ids=["tokens", "features", "waveforms", "numbers", "flags"],
)
def test_tensors_that_are_no_pictures_are_taken_value_by_value(asked: Tensor) -> None:
    codes = sample_codes(asked, torch.zeros(5, 2), KEY)
    assert codes.shape == (5, asked[0].numel())
    assert codes.dtype == torch.int64


@settings(max_examples=40, deadline=None)
@given(value=st.floats(width=32, allow_nan=False), side=st.integers(1, 20))
def test_any_value_gives_numbers_that_can_be_used(value: float, side: int) -> None:
    asked = torch.full((2, 1, side, side), value)
    found = uniforms(sample_hashes(sample_codes(asked, torch.zeros(2, 2), KEY), KEY), 3)
    assert bool(((found > 0) & (found < 1)).all())
    assert torch.equal(found[0], found[1])


# fresh numbers and state ----------------------------------------------------------------------------------


def test_fresh_numbers_differ_at_each_query_and_repeat_in_the_next_run() -> None:
    asked, scores = images(1).expand(6, -1, -1, -1), torch.full((6, 4), 0.25)
    first, again = noise(fresh=True), noise(fresh=True)
    run = torch.cat([first.uniforms(asked[:2], scores[:2], 4), first.uniforms(asked[2:], scores[2:], 4)])
    assert len({tuple(row) for row in run.tolist()}) == 6
    assert torch.equal(run, again.uniforms(asked, scores, 4))  # in whatever batches it was asked


@pytest.mark.parametrize("fresh", [False, True])
def test_no_global_generator_is_touched(fresh: bool) -> None:
    keyed = noise(fresh=fresh)
    before = global_streams()
    keyed.uniforms(images(4), torch.full((4, 4), 0.25), 4)
    assert not differences(before, global_streams())


def test_the_state_is_the_key() -> None:
    keyed, loaded = noise(), KeyedNoise()
    loaded.load_state(keyed.state())
    asked, scores = images(3), torch.full((3, 4), 0.25)
    assert torch.equal(keyed.uniforms(asked, scores, 4), loaded.uniforms(asked, scores, 4))
    assert KeyedNoise().state() == {}


@pytest.mark.parametrize("state", [{}, {"key": torch.zeros(2, dtype=torch.int64)}, {"key": torch.zeros(1)}])
def test_without_a_key_there_are_no_numbers(state: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="key"):
        KeyedNoise().load_state(state)
    with pytest.raises(ModelError, match="no key yet"):
        KeyedNoise().uniforms(images(1), torch.ones(1, 2), 1)


def test_the_device_changes_nothing() -> None:
    asked, scores = images(3), torch.full((3, 4), 0.25)
    expected = noise().uniforms(asked, scores, 4).tolist()
    with pretend_accelerator() as device:
        found = noise().uniforms(asked.to(device), scores.to(device), 4)
        assert found.device.type == device.type
        assert found.cpu().tolist() == expected
