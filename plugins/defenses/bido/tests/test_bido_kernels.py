"""Kernels and measures of dependence against their definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mi_defense_bido.kernels import (
    centred,
    coco,
    exact_dtype,
    gaussian_kernel,
    label_kernel,
    normalised_hsic,
    regularised,
    squared_distances,
)

Floats = NDArray[np.float64]
EPSILON, M = 1e-5, 64
LABELS = np.arange(16).repeat(4)  # 16 classes with 4 samples


def gaussian(rows: Floats, s: float = 5.0) -> Floats:
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squares / (2 * s**2 * rows.shape[1])))


def onehot(labels: NDArray[np.int64]) -> Floats:
    return np.asarray((labels[:, None] == np.unique(labels)).astype(float))


def linear(labels: NDArray[np.int64]) -> Floats:
    return np.asarray(onehot(labels) @ onehot(labels).T)


def ratio(kernel: Floats, both_sides: bool) -> Floats:
    m = len(kernel)
    h = np.eye(m) - 1 / m
    c = h @ kernel @ h if both_sides else kernel @ h
    return np.asarray(c @ np.linalg.inv(c + EPSILON * m * np.eye(m)))


def hsic(one: Floats, other: Floats, both_sides: bool = False) -> float:
    return float((ratio(one, both_sides) * ratio(other, both_sides).T).sum())


def ours(one: Floats, other: Floats) -> float:
    pair = regularised(centred(torch.tensor(np.stack([one, other]))), EPSILON)
    return float(normalised_hsic(pair[0], pair[1]))


def drawn(seed: int = 0) -> tuple[Floats, Floats]:
    """Return pixels and features of 64 samples of 16 classes, both with something of the class."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.uniform(size=(16, 768))[LABELS] * 0.5 + rng.uniform(size=(M, 768)) * 0.5, 0, 1)
    features = rng.normal(size=(16, 128))[LABELS] + rng.normal(size=(M, 128))
    return pixels, features


PIXELS, FEATURES = drawn()


def test_kernels_are_their_definitions() -> None:
    assert gaussian_kernel(torch.tensor(PIXELS), 5.0).numpy() == pytest.approx(gaussian(PIXELS), rel=1e-12)
    assert gaussian_kernel(torch.tensor(FEATURES), 2.0).numpy() == pytest.approx(gaussian(FEATURES, 2.0), rel=1e-12)
    assert np.array_equal(label_kernel(torch.tensor(LABELS), torch.float64).numpy(), linear(LABELS))


def test_distances_of_far_rows_are_exact() -> None:
    rows = torch.tensor(FEATURES) + 1e6
    expected = ((FEATURES[:, None] - FEATURES[None]) ** 2).sum(axis=2)
    assert squared_distances(rows).numpy() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert float(squared_distances(torch.ones(3, 4)).abs().max()) == 0.0


def test_the_papers_bandwidth_makes_the_kernel_of_images_almost_flat() -> None:
    rows = torch.rand(M, 3072, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    off = gaussian_kernel(rows, 5.0)[~torch.eye(M, dtype=torch.bool)]
    assert float(off.mean()) == pytest.approx(0.9967, abs=1e-4)
    spectrum = torch.linalg.eigvalsh(centred(gaussian_kernel(rows, 5.0)))[1:]
    assert 1e-4 < float(spectrum.min()) < EPSILON * M * 10  # of the order of the ridge


@pytest.mark.parametrize("other", ["features", "labels"])
def test_hsic_is_the_definition_and_one_centring_is_enough(other: str) -> None:
    one, second = gaussian(PIXELS), gaussian(FEATURES) if other == "features" else linear(LABELS)
    expected = hsic(one, second)
    assert hsic(one, second, both_sides=True) == pytest.approx(expected, rel=1e-6)  # KH for HKH
    assert ours(one, second) == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < M - 1


def test_a_stack_is_measured_as_its_parts() -> None:
    kernels = [gaussian(PIXELS), gaussian(FEATURES), linear(LABELS)]
    matrices = regularised(centred(torch.tensor(np.stack(kernels))), EPSILON)
    found = normalised_hsic(matrices[1:], matrices[0])
    assert found.numpy() == pytest.approx([hsic(kernels[0], kernel) for kernel in kernels[1:]], rel=1e-6)


def test_labels_that_all_differ_say_nothing() -> None:
    """The pathology that batches of several samples of a class avoid."""
    features, order = gaussian(FEATURES), np.random.default_rng(1).permutation(M)
    distinct = np.arange(M)
    assert ours(features, linear(distinct)) == pytest.approx(ours(features, linear(distinct[order])), rel=1e-9)
    trace = float(np.trace(ratio(features, True)))
    assert ours(features, linear(distinct)) == pytest.approx(trace / (1 + EPSILON * M), rel=1e-9)


def test_true_labels_are_told_from_permuted_ones_in_batches_of_16_classes() -> None:
    features, rng = gaussian(FEATURES), np.random.default_rng(2)
    permuted = [ours(features, linear(rng.permutation(LABELS))) for _ in range(20)]
    true = ours(features, linear(LABELS))
    assert true > max(permuted)
    assert true == pytest.approx(15, abs=0.5)  # of 16 classes, all directions


def both_norms(one: Floats, other: Floats) -> tuple[float, float]:
    c = centred(torch.tensor(np.stack([one, other])))
    return float(coco(c[0], c[1], "fro")), float(coco(c[0], c[1], "spectral"))


@pytest.mark.parametrize(("other", "about"), [("features", 1.8), ("labels", 1.9)])
def test_coco_is_the_definition_and_the_authors_norm_is_larger(other: str, about: float) -> None:
    one, second = gaussian(PIXELS), gaussian(FEATURES) if other == "features" else linear(LABELS)
    h = np.eye(M) - 1 / M
    product = h @ one @ h @ h @ second @ h
    fro, spectral = both_norms(one, second)
    assert fro == pytest.approx(np.sqrt(np.sqrt((product**2).sum())) / M, rel=1e-9)
    assert spectral == pytest.approx(np.sqrt(np.linalg.svd(product)[1][0]) / M, rel=1e-9)
    assert spectral < fro
    assert fro / spectral == pytest.approx(about, abs=0.35)


@settings(max_examples=25, deadline=None)
@given(m=st.integers(2, 12), d=st.integers(1, 6), seed=st.integers(0, 99), scale=st.floats(0.1, 30))
def test_measures_are_symmetric_and_in_their_range(m: int, d: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = (gaussian(scale * rng.normal(size=(m, d))) for _ in range(2))
    assert ours(one, other) == pytest.approx(ours(other, one), rel=1e-6, abs=1e-9)
    assert -1e-9 <= ours(one, other) <= m - 1
    fro, spectral = both_norms(one, other)
    assert 0 <= spectral <= fro * (1 + 1e-9)
    assert fro <= spectral * (m**0.25 + 1e-9)


def gradient(measure: str, rows: Tensor, labels: Tensor) -> Tensor:
    rows = rows.clone().requires_grad_(True)
    kernels = centred(torch.stack([label_kernel(labels, rows.dtype), gaussian_kernel(rows, 5.0)]))
    if measure == "hsic":
        matrices = regularised(kernels, EPSILON)
        normalised_hsic(matrices[1], matrices[0]).backward()
    else:
        coco(kernels[1], kernels[0], "spectral" if measure == "spectral" else "fro").backward()
    assert rows.grad is not None
    return rows.grad


@pytest.mark.parametrize("measure", ["hsic", "fro", "spectral"])
@pytest.mark.parametrize("case", ["usual", "equal rows", "one class"])
def test_gradients_are_finite(measure: str, case: str) -> None:
    rows = torch.ones(8, 5, dtype=torch.float64) if case == "equal rows" else torch.tensor(FEATURES[:8, :5])
    labels = torch.zeros(8, dtype=torch.int64) if case == "one class" else torch.arange(8) // 2
    found = gradient(measure, rows, labels)
    assert bool(torch.isfinite(found).all())
    assert (float(found.abs().max()) > 1e-6) == (case == "usual")


def test_hsic_has_the_gradient_of_its_value() -> None:
    rows, labels, step = torch.tensor(FEATURES[:8, :3]), torch.arange(8) // 2, 1e-6
    found = gradient("hsic", rows, labels)

    def value(shift: float) -> float:
        moved = rows.clone()
        moved[2, 1] += shift
        return hsic(gaussian(moved.numpy()), linear(labels.numpy()))

    assert float(found[2, 1]) == pytest.approx((value(step) - value(-step)) / (2 * step), rel=1e-3)


def test_kernels_are_exact_where_the_device_can() -> None:
    assert exact_dtype(torch.device("cpu")) == torch.float64


def test_a_device_without_float64_has_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*_: object, **__: object) -> Tensor:
        raise TypeError("the framework doesn't support float64")

    monkeypatch.setattr(torch, "zeros", zeros)
    exact_dtype.cache_clear()
    try:
        assert exact_dtype(torch.device("meta")) == torch.float32
    finally:
        exact_dtype.cache_clear()


def test_float32_is_close() -> None:
    kernels = [gaussian_kernel(torch.tensor(rows).float(), 5.0) for rows in (PIXELS, FEATURES)]
    matrices = regularised(centred(torch.stack(kernels)), EPSILON)
    found = float(normalised_hsic(matrices[0], matrices[1]))
    assert found == pytest.approx(hsic(gaussian(PIXELS), gaussian(FEATURES)), rel=5e-3)
