"""Intervals against scipy, against known values, and by how often they hold the truth."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from micore.kit import statistics
from micore.kit.statistics import Interval, cluster_bootstrap, paired_difference, percentile_interval, wilson


def _bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _rates(rng: np.random.Generator, classes: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Successes of ``rows`` attempts in each class, with real differences between classes (mean 2/3)."""
    chance = rng.beta(2, 1, size=(classes, 1))
    hits = (rng.random((classes, rows)) < chance).astype(float)
    return hits.ravel(), np.repeat(np.arange(classes), rows)


# --- Wilson ---------------------------------------------------------------------------------------


def test_wilson_known_values() -> None:
    assert _bounds(wilson(0, 300)) == pytest.approx((0, 0.0126), abs=5e-5)
    assert _bounds(wilson(270, 300)) == pytest.approx((0.861, 0.929), abs=5e-4)
    assert wilson(0, 300).low == 0.0
    assert wilson(300, 300).high == 1.0


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 2000), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    found = wilson(successes, n, level=level)
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert _bounds(found) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.estimate <= found.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5), (1, math.inf)])
def test_wilson_refuses_impossible_counts(successes: float, n: float) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan])
def test_levels_are_fractions(level: float) -> None:
    calls = (
        lambda: wilson(1, 5, level=level),
        lambda: percentile_interval([1.0], level=level),
        lambda: cluster_bootstrap([0, 1], [0, 1], rng=0, level=level),
        lambda: cluster_bootstrap([3, 3], [0, 1], rng=0, level=level),
    )
    for call in calls:
        with pytest.raises(ValueError, match="level"):
            call()


# --- the cluster bootstrap ------------------------------------------------------------------------


def test_it_covers_the_truth_where_rows_would_not() -> None:
    """40 classes of 25 rows: an interval over classes holds the true rate, one over rows too seldom."""
    rng, trials = np.random.default_rng(0), 200
    held = held_by_rows = 0
    for _ in range(trials):
        values, clusters = _rates(rng, classes=40, rows=25)
        found = cluster_bootstrap(values, clusters, rng=rng, resamples=400)
        held += found.low <= 2 / 3 <= found.high
        naive = wilson(values.sum(), len(values))
        held_by_rows += naive.low <= 2 / 3 <= naive.high
    assert 0.89 <= held / trials <= 0.99
    assert held_by_rows / trials < 0.7


def test_its_width_is_that_of_the_class_means() -> None:
    """With equal classes the standard error is std(class means) / sqrt(classes)."""
    values, clusters = _rates(np.random.default_rng(1), classes=50, rows=50)
    found = cluster_bootstrap(values, clusters, rng=1, resamples=8000)
    error = values.reshape(50, 50).mean(1).std() / math.sqrt(50)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert (found.clusters, found.method, found.level) == (50, "cluster bootstrap", 0.95)


def test_clusters_of_one_row_are_the_ordinary_bootstrap() -> None:
    values = np.random.default_rng(2).gamma(2, size=60)
    found = cluster_bootstrap(values, np.arange(60), rng=2, resamples=6000)
    expected = bootstrap((values,), np.mean, n_resamples=6000, method="percentile", rng=3).confidence_interval
    assert _bounds(found) == pytest.approx((expected.low, expected.high), abs=0.04)


def test_it_is_a_ratio_estimator() -> None:
    """A large class weighs as many rows as it has, in the estimate and in every resample."""
    values, clusters = [1, 1, 1, 0], ["big", "big", "big", "small"]
    found = cluster_bootstrap(values, clusters, rng=0)
    assert found.estimate == 0.75
    assert _bounds(found) == (0.0, 1.0)  # both draws the same class: half of the resamples
    central = cluster_bootstrap(values, clusters, rng=0, level=0.4)
    assert _bounds(central) == (0.75, 0.75)  # one of each: the mean over all rows, not the mean 0.5 of means


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_properties(rows: list[tuple[float, int]], seed: int) -> None:
    values, clusters = (np.array(column) for column in zip(*rows, strict=True))
    found = cluster_bootstrap(values, clusters, rng=seed, resamples=200)
    assert found.low <= found.high
    assert found.clusters == len(set(clusters.tolist()))
    assert found.estimate == pytest.approx(values.mean(), abs=1e-12)
    if found.clusters > 1 and not np.isin(values, (0, 1)).all():
        assert values.min() - 1e-9 <= found.low
        assert found.high <= values.max() + 1e-9
    assert found == cluster_bootstrap(values, clusters, rng=np.random.default_rng(seed), resamples=200)
    renamed = cluster_bootstrap(values, np.array(list("abcde"))[clusters], rng=seed, resamples=200)
    assert found == renamed


def test_large_problems_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = _rates(np.random.default_rng(3), classes=20, rows=5)
    monkeypatch.setattr(statistics, "BLOCK_ENTRIES", 130)
    blocks = list(statistics._draws(20, 0, 100))
    assert [len(block) for block in blocks] == [6] * 16 + [4]
    assert cluster_bootstrap(values, clusters, rng=0, resamples=100).low < values.mean()


# --- where the bootstrap collapses ----------------------------------------------------------------


@pytest.mark.parametrize(("value", "low", "high"), [(0, 0.0, None), (1, None, 1.0)])
def test_all_misses_and_all_hits_count_classes(value: int, low: float | None, high: float | None) -> None:
    """300 reconstructions of 30 classes without a hit say as much as 30 attempts, not as 300."""
    found = cluster_bootstrap(np.full(300, value), np.repeat(np.arange(30), 10), rng=0)
    expected = wilson(30 * value, 30)
    assert _bounds(found) == _bounds(expected)
    assert found.method == "wilson on clusters"
    assert found.clusters == 30
    assert found.low == low or found.high == high
    assert found.high - found.low > wilson(300 * value, 300).high - wilson(300 * value, 300).low


def test_rates_that_are_equal_in_all_classes_do_not_claim_certainty() -> None:
    found = cluster_bootstrap([1, 0] * 10 + [1, 1, 0, 0], np.repeat(range(11), [2] * 10 + [4]), rng=0)
    assert found.estimate == 0.5
    assert _bounds(found) == _bounds(wilson(5.5, 11))


def test_one_class_is_one_observation() -> None:
    found = cluster_bootstrap([1, 1, 0, 1], [7, 7, 7, 7], rng=0)
    assert _bounds(found) == _bounds(wilson(0.75, 1))
    assert found.high - found.low > 0.8
    assert _bounds(cluster_bootstrap([0.3, 0.4], [7, 7], rng=0)) == (-math.inf, math.inf)


def test_equal_measurements_are_a_point() -> None:
    found = cluster_bootstrap([0.3, 0.3, 0.3], [0, 1, 1], rng=0)
    assert _bounds(found) == pytest.approx((0.3, 0.3))
    assert "do not differ" in found.method


# --- paired differences ---------------------------------------------------------------------------


def test_pairing_removes_what_classes_share() -> None:
    rng = np.random.default_rng(4)
    ease, clusters = np.repeat(rng.normal(size=60), 4), np.repeat(np.arange(60), 4)
    a, b = ease + rng.normal(size=240) * 0.1 + 0.05, ease + rng.normal(size=240) * 0.1
    found = paired_difference(a, clusters, b, clusters, rng=5)
    assert found.estimate == pytest.approx((a - b).mean())
    assert 0 < found.low < found.estimate < found.high < 0.12
    alone = cluster_bootstrap(a, clusters, rng=5)
    assert found.high - found.low < 0.2 * (alone.high - alone.low)


def test_equal_rows_are_a_bootstrap_of_differences() -> None:
    a, clusters = _rates(np.random.default_rng(6), classes=20, rows=6)
    b = np.random.default_rng(7).permutation(a)
    found = paired_difference(a, clusters, b, clusters, rng=8)
    assert _bounds(found) == pytest.approx(_bounds(cluster_bootstrap(a - b, clusters, rng=8)), abs=1e-12)
    back = paired_difference(b, clusters, a, clusters, rng=8)
    assert _bounds(back) == pytest.approx((-found.high, -found.low))


def test_order_and_number_of_rows_may_differ() -> None:
    a, clusters = _rates(np.random.default_rng(9), classes=15, rows=4)
    order = np.random.default_rng(10).permutation(len(a))
    b = np.random.default_rng(11).permutation(a)
    straight = paired_difference(a, clusters, b, clusters, rng=0)
    assert paired_difference(a[order], clusters[order], b, clusters, rng=0) == straight
    twice = paired_difference(a, clusters, np.tile(b, 2), np.tile(clusters, 2), rng=0)
    assert _bounds(twice) == pytest.approx(_bounds(straight))


def test_two_runs_with_the_same_hits_do_not_claim_certainty() -> None:
    a, clusters = _rates(np.random.default_rng(9), classes=15, rows=4)
    found = paired_difference(a, clusters, a, clusters, rng=0)
    assert found.estimate == 0
    assert found.method == "newcombe on clusters"
    assert found.low < -0.2
    assert found.high > 0.2


def test_two_runs_without_a_hit_may_still_differ() -> None:
    """Newcombe's interval for 0/20 against 0/20 is the two Wilson intervals' widths: +-0.161."""
    clusters = np.repeat(np.arange(20), 5)
    found = paired_difference(np.zeros(100), clusters, np.zeros(100), clusters, rng=0)
    width = wilson(0, 20).high
    assert found.estimate == 0
    assert _bounds(found) == pytest.approx((-width, width))
    assert found.method == "newcombe on clusters"
    full = paired_difference(np.ones(100), clusters, np.zeros(100), clusters, rng=0)
    assert full.high == 1.0
    assert full.low == pytest.approx(1 - math.hypot(width, width))


def test_newcombe_published_example() -> None:
    """Newcombe (1998), table II, 56/70 against 48/80 by method 10: 0.0524 to 0.3339."""
    low_a, high_a = _bounds(wilson(56, 70))
    low_b, high_b = _bounds(wilson(48, 80))
    assert 0.2 - math.hypot(0.8 - low_a, high_b - 0.6) == pytest.approx(0.0524, abs=1e-4)
    assert 0.2 + math.hypot(high_a - 0.8, 0.6 - low_b) == pytest.approx(0.3339, abs=1e-4)


def test_measurements_of_one_class_cannot_be_compared() -> None:
    assert _bounds(paired_difference([0.2, 0.3], [1, 1], [0.4], [1], rng=0)) == (-math.inf, math.inf)
    mixed = paired_difference([1, 1], [1, 1], [0.4], [1], rng=0)
    assert mixed.low == -math.inf
    assert "wilson" in mixed.method
    assert "unbounded" in mixed.method


def test_runs_over_different_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same clusters.*\[3\]"):
        paired_difference([1, 0], [1, 2], [1, 0, 1], [1, 2, 3], rng=0)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "clusters"), [([], []), ([1.0, math.nan], [0, 1]), ([1.0, 2.0], [0]), ([[1.0]], [[0]])]
)
def test_bad_data_is_refused(values: list[float], clusters: list[int]) -> None:
    with pytest.raises(ValueError, match="values"):
        cluster_bootstrap(values, clusters, rng=0)


def test_there_must_be_a_resample() -> None:
    with pytest.raises(ValueError, match="resamples"):
        cluster_bootstrap([0, 1], [0, 1], rng=0, resamples=0)


def test_the_module_does_not_import_torch() -> None:
    code = "import sys, micore.kit.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
