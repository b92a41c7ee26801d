"""Defenses beside each other: arrows only where intervals part, floors marked, families joined."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from micore.suites.matrix import arrow, matrix_tables

COLUMN = {"name": "accuracy@1", "evaluator": "accuracy", "judge": 1, "direction": "up"}


def figure(value: float, low: float, high: float, *, beats: bool | None = True, **changes: Any) -> dict[str, Any]:
    interval = {"low": low, "high": high, "level": 0.95}
    return {
        **COLUMN, "value": value, "interval": interval, "beats_floor": beats,
        "floors": {"prior-samples": {"value": 0.1, "interval": interval}}, "highest_floor": "prior-samples",
        "ceiling": {"value": 0.9, "interval": interval}, **changes,
    }  # fmt: skip


def row(defense: str, attack: str, found: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    utility = {"calibration_error": 0.03, "score_change": 0.0}
    accuracy = {"value": 0.9, "interval": None}
    return {
        "target": "grids", "seed": 0, "defense": defense, "family": None, "attack": attack, "status": "finished",
        "figures": [found] if found else [], "holdout_accuracy": accuracy, "utility": utility, **changes,
    }  # fmt: skip


ROWS = [
    row("none", "a", figure(0.8, 0.7, 0.9)),
    row("none", "b", figure(0.5, 0.3, 0.7, ceiling=None)),
    row("weak", "a", figure(0.75, 0.6, 0.95), family="wall"),
    row("strong", "a", figure(0.2, 0.1, 0.3, beats=False, floors={"prior-samples": {"value": 0.2}}), family="wall"),
    row("strong", "b", None, status="failed", holdout_accuracy=None),
]


def table(rows: list[dict[str, Any]] = ROWS) -> dict[str, Any]:
    (found,) = matrix_tables({"rows": rows, "columns": [COLUMN]})
    return found


def test_a_cell_has_an_arrow_only_where_the_intervals_part() -> None:
    found = table()
    assert found["title"] == "accuracy@1, judge 1, grids, seed 0"
    assert found["columns"] == ["defense", "held-out accuracy", "calibration error", "change of scores", "a", "b"]
    cells = {cells[0]: cells[1:] for cells in found["rows"]}
    assert cells["none"] == ["90.0%", "0.030", "0.000", "0.800 [0.700, 0.900]", "0.500 [0.300, 0.700]"]
    assert cells["weak"][3:] == ["0.750 [0.600, 0.950]", ""]
    assert cells["strong"][3:] == ["0.200 [0.100, 0.300]* ↓", "failed"]
    assert cells["floors of all defenses"] == ["", "", "", "0.100 to 0.200", "0.100"]
    assert cells["ceilings of all defenses"] == ["", "", "", "0.900", "none"]


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.1, 0.69, "up", " ↓"), (0.1, 0.7, "up", ""), (0.91, 0.95, "up", " ↑"), (0.91, 0.95, "down", " ↓"),
        (0.1, 0.2, "down", " ↑"), (0.1, 0.2, "none", ""),
    ],
)  # fmt: skip
def test_an_arrow_points_to_less_or_more_leakage(low: float, high: float, direction: str, expected: str) -> None:
    plain = figure(0.8, 0.7, 0.9, direction=direction)
    assert arrow(figure(0.5, low, high, direction=direction), plain) == expected


def test_a_figure_without_interval_has_no_arrow() -> None:
    assert arrow(figure(0.1, 0, 0.2, interval=None), figure(0.8, 0.7, 0.9)) == ""


def test_families_are_lines_and_attacks_are_panels() -> None:
    pytest.importorskip("matplotlib")
    picture = table()["picture"]
    ElementTree.fromstring(picture)
    for text in ("held-out accuracy", "wall", "none"):
        assert text in picture
    assert "weak" not in picture
    assert picture == table()["picture"], "the same tables give the same picture"


def test_one_defense_alone_is_compared_with_nothing() -> None:
    assert matrix_tables({"rows": ROWS[:2], "columns": [COLUMN]}) == []
    assert matrix_tables({"rows": ROWS, "columns": [{**COLUMN, "judge": 2}]}) == []


def test_a_panel_of_one_point_is_left_out() -> None:
    pytest.importorskip("matplotlib")
    picture = table([*ROWS, row("weak", "lonely", figure(0.5, 0.4, 0.6))])["picture"]
    assert "lonely" not in picture
    assert table([row("x", "c", figure(0.5, 0.4, 0.6)), row("y", "d", None)])["picture"] is None
