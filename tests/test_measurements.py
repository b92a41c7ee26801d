"""Measurements survive JSON."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from micore.contracts import Interval, Measurement
from micore.measurements import measurement_from_dict, measurement_to_dict

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    value=NUMBERS,
    interval=st.one_of(st.none(), st.builds(Interval, low=NUMBERS, high=NUMBERS, level=st.just(0.9))),
    per_case=st.dictionaries(st.text(max_size=4), NUMBERS, max_size=3),
    notes=st.lists(st.text(max_size=4), max_size=2),
)
def test_round_trip(value, interval, per_case, notes):
    measurement = Measurement(
        name="acc", subject="attack", value=value, interval=interval, n=3, clusters=2, unit="1",
        direction="up", evaluator="e@1", per_case=per_case, notes=tuple(notes),
    )  # fmt: skip
    assert measurement_from_dict(json.loads(json.dumps(measurement_to_dict(measurement)))) == measurement


def test_what_is_not_finite_is_null_and_comes_back_as_nan():
    measurement = Measurement(
        name="acc", subject="attack", value=math.inf, interval=None, n=0, clusters=0, unit="1",
        direction="none", evaluator="e@1", per_case={"a": math.nan, "b": 1.0},
    )  # fmt: skip
    data = measurement_to_dict(measurement)
    assert data["value"] is None
    assert data["per_case"] == {"a": None, "b": 1.0}
    back = measurement_from_dict(data)
    assert math.isnan(back.value)
    assert math.isnan(back.per_case["a"])


def test_an_interval_that_is_not_finite_is_json_too():
    interval = Interval(low=-math.inf, high=math.nan)
    measurement = Measurement(
        name="acc", subject="attack", value=0.0, interval=interval, n=0, clusters=0, unit="1",
        direction="none", evaluator="e@1",
    )  # fmt: skip
    data = measurement_to_dict(measurement)
    json.dumps(data, allow_nan=False)
    assert measurement_from_dict(data).interval is None
