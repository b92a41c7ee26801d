"""Input specs are checked when they are made and read."""

from __future__ import annotations

import pytest

from micore.errors import ModelError
from micore.inputs import InputSpec


def test_round_trip():
    spec = InputSpec(shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, options={"sampling_rate": 16000})
    assert InputSpec.from_dict(spec.to_dict()) == spec
    assert InputSpec.from_dict({"shape": [2]}) == InputSpec(shape=(2,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "1 means but 0 standard deviations"),
        ({"mean": (0.5,), "std": (0.0,)}, "must be positive"),
        ({"mean": (0.5,), "std": (-1.0,)}, "must be positive"),
    ],
)
def test_normalisation_must_make_sense(changes, message):
    with pytest.raises(ModelError, match=message):
        InputSpec(shape=(1, 4, 4), **changes)


@pytest.mark.parametrize("data", [{}, {"shape": ["wide"]}, {"shape": 3}, {"shape": [1], "mean": ["a"]}, "wide", None])
def test_malformed_specs_are_refused(data):
    with pytest.raises(ModelError, match="is malformed"):
        InputSpec.from_dict(data)
