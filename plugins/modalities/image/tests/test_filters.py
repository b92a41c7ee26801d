"""Filters against plain loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_image.filters import DENOISERS, gaussian, median, non_local_means, sharpen

FILTERS = list(DENOISERS.items())
STRENGTHS = {"median": 1.0, "gaussian": 0.7, "non-local-means": 0.1}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mirrored(plane: np.ndarray, radius: int) -> np.ndarray:
    return np.pad(plane, radius, mode="reflect")


def over_pixels(plane: np.ndarray, radius: int, value: Callable[[np.ndarray], float]) -> Tensor:
    """Apply a function to the window around each pixel."""
    padded, width = mirrored(plane, radius), 2 * radius + 1
    height, length = plane.shape
    rows = [[value(padded[i : i + width, j : j + width]) for j in range(length)] for i in range(height)]
    return torch.tensor(rows, dtype=torch.float64)


def test_median_is_that_of_nine() -> None:
    batch = images(2, 1, 5, 6)
    for image, filtered in zip(batch, median(batch), strict=True):
        torch.testing.assert_close(filtered[0], over_pixels(image[0].numpy(), 1, lambda w: float(np.median(w))))
    torch.testing.assert_close(median(batch, 0.25), 0.75 * batch + 0.25 * median(batch))


def test_gaussian_is_the_weighted_sum_of_its_window() -> None:
    plane, deviation = images(9, 8, seed=1), 0.9
    radius = math.ceil(3 * deviation)
    axis = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    kernel = np.outer(axis, axis) / axis.sum() ** 2
    expected = over_pixels(plane.numpy(), radius, lambda window: float((window * kernel).sum()))
    torch.testing.assert_close(gaussian(plane[None, None], deviation)[0, 0], expected)


def test_non_local_means_is_the_average_by_resemblance() -> None:
    plane, strength, reach = images(6, 7, seed=2).numpy(), 0.3, 2
    height, width = plane.shape
    wide = mirrored(plane, reach)
    total, weights = np.zeros_like(plane), np.zeros_like(plane)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            shifted = wide[down : down + height, right : right + width]
            distance = over_pixels((plane - shifted) ** 2, 1, lambda window: float(window.mean())).numpy()
            weight = np.exp(-distance / strength**2)
            total, weights = total + weight * shifted, weights + weight
    filtered = non_local_means(torch.from_numpy(plane)[None, None], strength, reach=reach)
    torch.testing.assert_close(filtered[0, 0], torch.from_numpy(total / weights))


def test_sharpening_adds_what_blurring_takes() -> None:
    batch = images(1, 1, 6, 6)
    torch.testing.assert_close(sharpen(batch, 0.5), 1.5 * batch - 0.5 * gaussian(batch, 0.7))
    assert sharpen(batch, 0.0) is batch


@pytest.mark.parametrize(("name", "denoise"), FILTERS)
def test_a_flat_image_stays_and_an_image_does_not_depend_on_others(
    name: str, denoise: Callable[[Tensor, float], Tensor]
) -> None:
    flat, batch = torch.full((1, 3, 8, 8), 0.3), images(3, 3, 8, 8).float()
    torch.testing.assert_close(denoise(flat, STRENGTHS[name]), flat)
    together = denoise(batch, STRENGTHS[name])
    torch.testing.assert_close(together[1:2], denoise(batch[1:2], STRENGTHS[name]))
    assert together.shape == batch.shape


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(DENOISERS)), st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_denoising_never_leaves_the_range(name: str, height: int, width: int, seed: int) -> None:
    batch = images(2, 1, height, width, seed=seed)
    filtered = DENOISERS[name](batch, STRENGTHS[name])
    assert float(filtered.min()) >= float(batch.min()) - 1e-12
    assert float(filtered.max()) <= float(batch.max()) + 1e-12
