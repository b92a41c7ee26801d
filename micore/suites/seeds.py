"""Rows that differ in their seed only: means over seeds, with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

Document = dict[str, Any]

LEVEL = 0.95
SHARES = ("share", "probability", "rate")


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[Document]:
    """Summarise the finished rows of each target, defense and attack that were run with two or more seeds."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "finished" and row["figures"]:
            groups.setdefault((row["target"], row["defense"], row["attack"]), []).append(row)
    return [_summary(key, members) for key, members in groups.items() if len(members) > 1]


def _summary(key: tuple[str, str, str], rows: Sequence[Mapping[str, Any]]) -> Document:
    target, defense, attack = key
    utilities = [row["holdout_accuracy"]["value"] for row in rows if row["holdout_accuracy"]]
    return {
        "target": target, "defense": defense, "attack": attack, "seeds": [row["seed"] for row in rows],
        "holdout_accuracy": mean_interval(utilities, share=True) if len(utilities) == len(rows) else None,
        "figures": _figures(rows),
        "attack_s": fmean(seconds) if (seconds := [row["attack_s"] for row in rows if row["attack_s"]]) else None,
    }  # fmt: skip


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[Document]:
    """Average each figure that all rows have, with those of its floors and the ceiling that all have, too."""
    values: dict[tuple[str, str, int | None], list[float]] = {}
    units: dict[tuple[str, str, int | None], str] = {}
    members: dict[tuple[str, str, int | None], list[Mapping[str, Any]]] = {}
    for figure in (figure for row in rows for figure in row["figures"] if figure["value"] is not None):
        key = figure["name"], figure["evaluator"], figure["judge"]
        values.setdefault(key, []).append(figure["value"])
        units[key] = figure["unit"]
        members.setdefault(key, []).append(figure)
    return [
        {
            "name": key[0],
            "evaluator": key[1],
            "judge": key[2],
            **mean_interval(found, share=units[key] in SHARES),
            **_bounds(members[key]),
        }
        for key, found in values.items()
        if len(found) == len(rows)
    ]


def _bounds(figures: Sequence[Mapping[str, Any]]) -> Document:
    """Return the means of the floors and of the ceiling; what one row lacks is left out."""
    names = dict.fromkeys(name for figure in figures for name in figure["floors"])
    floors = {name: _mean([figure["floors"].get(name) for figure in figures]) for name in names}
    return {
        "floors": {name: cell for name, cell in floors.items() if cell is not None},
        "ceiling": _mean([figure["ceiling"] for figure in figures]), "beats_floor": None,
    }  # fmt: skip


def _mean(cells: Sequence[Mapping[str, Any] | None]) -> Document | None:
    values = [cell["value"] for cell in cells if cell is not None and cell["value"] is not None]
    return {"value": fmean(values)} if len(values) == len(cells) else None


def mean_interval(values: Sequence[float], *, share: bool = False) -> Document:
    """Return the mean with Student's interval, as JSON; None for it where the values do not differ.

    share: the interval is cut off at 0 and 1. The seeds are taken for a random sample of all seeds.
    """
    mean, n = fmean(values), len(values)
    spread = stdev(values) if n > 1 else 0.0
    if spread <= 1e-12 * abs(mean):  # no scale is known that would tell how wide it should be
        return {"value": mean, "interval": None, "n": n}
    half = student_quantile((1 + LEVEL) / 2, n - 1) * spread / math.sqrt(n)
    low, high = mean - half, mean + half
    if share:
        low, high = max(0.0, low), min(1.0, high)
    return {"value": mean, "interval": {"low": low, "high": high, "level": LEVEL}, "n": n}


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile (above 0.5) of Student's distribution, by bisection."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < 2 * probability - 1:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return the probability of lying within -t and t (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
