"""From rows to measurements: classes are the units, and what has no value is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micore.contracts import Case, Reconstruction, Subject, Truth
from micore.errors import DataError
from micore.kit.measuring import Figure, Rows, batches_of, measure


def subject(*sizes: int, labels=None) -> Subject:
    labels = labels or list(range(len(sizes)))
    items = [
        Reconstruction(case=Case(id=f"case-{i}", goal="class", label=label), samples=torch.full((n, 2), float(i)),
                       scores=torch.zeros(n))
        for i, (n, label) in enumerate(zip(sizes, labels, strict=True))
    ]  # fmt: skip
    return Subject(name="attack", reconstructions=items)


def figure(*values: float, notes=()) -> Figure:
    return Figure("accuracy", torch.tensor(values), "1", "up", notes)


def test_rows_are_laid_out():
    rows = Rows.of(subject(2, 0, 1, labels=[4, 5, 4]))
    assert rows.case_ids == ("case-0", "case-1", "case-2")
    assert rows.positions.tolist() == [0, 0, 2]
    assert rows.labels.tolist() == [4, 4, 4]
    assert [len(part) for part in rows.samples] == [2, 0, 1]


@pytest.mark.parametrize("bad", [subject(), subject(0, 0), subject(1, 1, labels=[0, None])])
def test_rows_need_samples_and_labels(bad):
    with pytest.raises(DataError, match="attack has no samples of a class"):
        Rows.of(bad)


@given(st.lists(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=4), min_size=1, max_size=5))
def test_the_value_is_the_mean_over_classes(groups):
    found = measure(
        figure(*[v for group in groups for v in group]), Rows.of(subject(*map(len, groups))), "e@1", resamples=50
    )
    means = [np.mean(group, dtype=np.float64) for group in groups]
    assert found.value == pytest.approx(np.mean(means), abs=1e-6)
    assert (found.n, found.clusters) == (sum(map(len, groups)), len(groups))
    assert found.per_case == {f"case-{i}": pytest.approx(m, abs=1e-6) for i, m in enumerate(means)}
    assert (found.interval is None) == (len(groups) == 1 and found.value not in (0, 1))
    if found.interval is not None:
        assert found.interval.low - 1e-6 <= found.value or len(groups) > 1
        assert found.interval.low <= found.interval.high
    if found.interval is not None and not set(means) <= {0.0, 1.0}:
        assert min(means) - 1e-6 <= found.interval.low <= found.interval.high <= max(means) + 1e-6


def test_cases_of_one_class_are_one_unit():
    found = measure(figure(0.0, 1.0, 1.0), Rows.of(subject(1, 1, 1, labels=[0, 0, 1])), "e@1", resamples=50)
    assert found.value == 0.75
    assert found.clusters == 2
    assert found.per_case == {"case-0": 0.0, "case-1": 1.0, "case-2": 1.0}


def test_rows_without_a_value_are_left_out_and_counted():
    rows = Rows.of(subject(2, 1, 1))
    found = measure(figure(1.0, math.nan, 0.0, math.inf, notes=("n",)), rows, "e@1", resamples=50)
    assert found.n == 2
    assert found.per_case == {"case-0": 1.0, "case-1": 0.0}
    assert found.notes == ("n", "2 samples without a finite value left out")
    assert measure(figure(1.0, 1.0, 0.0, 0.0, notes=("n",)), rows, "e@1", resamples=50).notes == ("n",)


def test_a_subject_without_any_value_is_measured_as_nothing():
    found = measure(figure(*[math.nan] * 4), Rows.of(subject(2, 1, 1)), "e@1")
    assert math.isnan(found.value)
    assert (found.interval, found.n, found.clusters, found.per_case) == (None, 0, 0, {})
    assert found.notes == ("4 samples without a finite value left out",)


def test_the_interval_is_the_same_every_time():
    rows = Rows.of(subject(1, 1, 1, 1))
    values = figure(0.0, 1.0, 0.3, 0.6)
    assert measure(values, rows, "e@1", resamples=50) == measure(values, rows, "e@1", resamples=50)


@given(n=st.integers(0, 10), size=st.integers(1, 4))
def test_batches_hold_everything_in_order(n, size):
    batches = batches_of(torch.arange(n), size)
    assert [int(value) for batch in batches for value in batch] == list(range(n))
    assert all(1 <= len(batch) <= size for batch in batches)


def test_the_truth_knows_the_classes_of_instances():
    unlabelled = subject(2, 1, labels=[None, None])
    truth = {"case-0": Truth(sample=None, label=7), "case-1": Truth(sample=None, label=3)}
    assert Rows.of(unlabelled, truth).labels.tolist() == [7, 7, 3]
    assert Rows.of(subject(1, labels=[5]), {"case-0": Truth(sample=None, label=7)}).labels.tolist() == [5]


def test_without_any_class_a_case_is_one_unit():
    rows = Rows.of(subject(2, 1, 1, labels=[None, None, None]), labelled=False)
    found = measure(figure(0.0, 1.0, 1.0, 1.0), rows, "e@1", resamples=50)
    assert (found.value, found.clusters) == (pytest.approx(2.5 / 3), 3)
