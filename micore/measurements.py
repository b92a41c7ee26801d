"""Measurements as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from micore.contracts import Interval, Measurement


def measurement_to_dict(measurement: Measurement) -> dict[str, Any]:
    """Return the JSON form; a value or interval that is not finite becomes null."""
    data = asdict(measurement)
    data["value"] = _finite(measurement.value)
    data["interval"] = data["interval"] if _bounded(measurement.interval) else None
    data["per_case"] = {case_id: _finite(value) for case_id, value in measurement.per_case.items()}
    data["notes"] = list(measurement.notes)
    return data


def measurement_from_dict(data: Mapping[str, Any]) -> Measurement:
    """Read the JSON form."""
    values = dict(data)
    values["value"] = _number(values["value"])
    values["interval"] = Interval(**values["interval"]) if values["interval"] else None
    values["per_case"] = {case_id: _number(value) for case_id, value in values["per_case"].items()}
    values["notes"] = tuple(values["notes"])
    return Measurement(**values)


def _bounded(interval: Interval | None) -> bool:
    return interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
