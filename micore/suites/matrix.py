"""Defenses beside each other: what each costs the target's users, and what every attack recovers against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from micore.report.curves import scatter
from micore.report.figures import finite, number
from micore.suites.texts import UNDEFENDED, ceilings_of, figure_heading, find_figure, floors_of, mean, share

Document = Mapping[str, Any]

STRONGER = " ↓"
WEAKER = " ↑"
LEGEND = (
    "Each cell: what the attack recovers, with its 95 % interval over classes. ↓: the whole interval lies on the side "
    "of less leakage of that of the undefended target under the same attack, ↑: of more; without an arrow the two "
    "overlap, and no difference is shown. *: not beyond every floor, what the same judge gives without any attack."
)


def matrix_tables(document: Document) -> list[dict[str, Any]]:
    """Return a table for each setting (target, seed) of several defenses, and figure: defenses by attacks.

    Each has a title, the headings ``columns``, ``rows`` of cells, a ``legend``, and ``picture``: leakage over the
    accuracy that is left, a panel for each attack and a line for each family of defenses, as an SVG, or None without
    matplotlib.
    """
    found = []
    for setting, rows in _settings(document["rows"]).items():
        for figure in document["columns"]:
            if any(find_figure(row, figure) for row in rows):
                found.append(_table(f"{figure_heading(figure)}, {setting}", figure, rows))
    return found


def _settings(rows: Sequence[Document]) -> dict[str, list[Document]]:
    """Group the rows of settings that have several defenses."""
    found: dict[str, list[Document]] = {}
    for row in rows:
        found.setdefault(f"{row['target']}, seed {row['seed']}", []).append(row)
    return {name: group for name, group in found.items() if len({row["defense"] for row in group}) > 1}


def _table(title: str, figure: Document, rows: Sequence[Document]) -> dict[str, Any]:
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    by_defense: dict[str, dict[str, Document]] = {}
    for row in rows:
        by_defense.setdefault(row["defense"], {})[row["attack"]] = row
    return {
        "title": title,
        "legend": LEGEND,
        "columns": ["defense", "held-out accuracy", "calibration error", "change of scores", *attacks],
        "rows": [
            [name, *_utility(group), *_cells(group, by_defense.get(UNDEFENDED, {}), attacks, figure)]
            for name, group in by_defense.items()
        ]
        + [[f"{side}s of all defenses", "", "", "", *cells] for side, cells in _bounds(by_defense, attacks, figure)],
        "picture": scatter(
            {attack: _lines(by_defense, attack, figure) for attack in attacks},
            "held-out accuracy", figure["name"],
        ),
    }  # fmt: skip


def _bounds(
    by_defense: Mapping[str, Mapping[str, Document]], attacks: Sequence[str], figure: Document
) -> Iterator[tuple[str, list[str]]]:
    """Yield between what the hardest floors, and the ceilings, of each attack lie."""
    found = {
        attack: [
            item for group in by_defense.values() if attack in group and (item := find_figure(group[attack], figure))
        ]
        for attack in attacks
    }
    yield "floor", [floors_of(found[attack]) for attack in attacks]
    yield "ceiling", [ceilings_of(found[attack]) for attack in attacks]


def _utility(group: Mapping[str, Document]) -> list[str]:
    """Write what is left for the target's users; every row of a defense has the same target."""
    row = next((row for row in group.values() if row["holdout_accuracy"]), None)
    if row is None:
        return ["", "", ""]
    known = row["utility"]
    return [share(row["holdout_accuracy"]), *("" if value is None else number(value) for value in known.values())]


def _cells(
    group: Mapping[str, Document], plain: Mapping[str, Document], attacks: Sequence[str], figure: Document
) -> Iterator[str]:
    for attack in attacks:
        row = group.get(attack)
        item = find_figure(row, figure) if row else None
        if item is None:
            yield "" if row is None or row["status"] == "finished" else row["status"]
            continue
        undefended = find_figure(plain[attack], figure) if attack in plain and row is not plain[attack] else None
        beaten = "" if item["beats_floor"] or not item["floors"] else "*"
        yield mean(item) + beaten + (arrow(item, undefended) if undefended else "")


def arrow(item: Document, plain: Document) -> str:
    """Tell whether the interval of a figure lies wholly on one side of that of the undefended target."""
    ours, theirs = item["interval"], plain["interval"]
    if not ours or not theirs or item["direction"] not in ("up", "down"):
        return ""
    below, above = ours["high"] < theirs["low"], ours["low"] > theirs["high"]
    less, more = (below, above) if item["direction"] == "up" else (above, below)
    return STRONGER if less else WEAKER if more else ""


def _lines(
    by_defense: Mapping[str, Mapping[str, Document]], attack: str, figure: Document
) -> dict[str, list[tuple[float, float]]]:
    """Return the points (accuracy, leakage) of each family of defenses, in the order of the suite."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, group in by_defense.items():
        row = group.get(attack)
        item = find_figure(row, figure) if row else None
        if row is None or item is None or finite(item["value"]) is None or not row["holdout_accuracy"]:
            continue
        point = (row["holdout_accuracy"]["value"], item["value"])
        found.setdefault(row["family"] or name, []).append(point)
    return found
