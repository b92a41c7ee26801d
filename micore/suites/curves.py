"""Recovery over queries: what each attack of a suite recovers within each budget of queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from micore.report.curves import drawing
from micore.report.figures import finite
from micore.suites.texts import ceilings_of, figure_heading, find_figure, floors_of, mean

Document = Mapping[str, Any]


def budget_tables(document: Document) -> list[dict[str, Any]]:
    """Return a table for each setting (target, defense, seed) and figure: attacks by budgets.

    Each has a title, the headings ``columns``, ``rows`` of cells, and ``picture``: curves over the queries that were
    really spent, as an SVG, or None without matplotlib.
    """
    found = []
    for setting, rows in _settings(document["rows"]).items():
        budgets = sorted({row["budget"] for row in rows})
        by_attack = {label: [row for row in rows if row["label"] == label] for label in _labels(rows)}
        for figure in document["columns"]:
            if any(find_figure(row, figure) for row in rows):
                found.append(_table(f"{figure_heading(figure)}, {setting}", figure, budgets, by_attack))
    return found


def _settings(rows: Sequence[Document]) -> dict[str, list[Document]]:
    """Group the rows that have a budget."""
    found: dict[str, list[Document]] = {}
    for row in rows:
        if row["budget"] is not None:
            parts = [row["target"], *([] if row["defense"] == "none" else [row["defense"]]), f"seed {row['seed']}"]
            found.setdefault(", ".join(parts), []).append(row)
    return found


def _labels(rows: Sequence[Document]) -> list[str]:
    return list(dict.fromkeys(row["label"] for row in rows))


def _table(
    title: str, figure: Document, budgets: Sequence[int], by_attack: Mapping[str, Sequence[Document]]
) -> dict[str, Any]:
    known = [item for rows in by_attack.values() for row in rows if (item := find_figure(row, figure))]
    return {
        "title": title,
        "columns": ["attack", *(f"within {budget:,} queries" for budget in budgets), "floor", "ceiling"],
        "rows": [[label, *_cells(rows, figure, budgets), *_bounds(rows, figure)] for label, rows in by_attack.items()],
        "picture": drawing(
            {label: list(_points(rows, figure)) for label, rows in by_attack.items()}, known[0]["name"], _floor(known)
        ),
    }  # fmt: skip


def _cells(rows: Sequence[Document], figure: Document, budgets: Sequence[int]) -> Iterator[str]:
    """Yield a cell for each budget."""
    by_budget = {row["budget"]: row for row in rows}
    for budget in budgets:
        row = by_budget.get(budget)
        yield mean(find_figure(row, figure)) if row else ""


def _bounds(rows: Sequence[Document], figure: Document) -> tuple[str, str]:
    """Write the hardest floor and the ceiling of an attack, which may differ with what it recovered."""
    known = [item for row in rows if (item := find_figure(row, figure))]
    return floors_of(known), ceilings_of(known)


def _points(rows: Sequence[Document], figure: Document) -> Iterator[dict[str, Any]]:
    for row in sorted(rows, key=lambda row: row["budget"]):
        item = find_figure(row, figure)
        if item is not None:
            bounds = item["interval"] or {"low": None, "high": None}
            yield {"queries": row["queries"], "value": finite(item["value"]), "low": bounds["low"],
                   "high": bounds["high"]}  # fmt: skip


def _floor(figures: Sequence[Document]) -> float | None:
    """Return the highest of the floors that the rows have: no curve is above a floor unless it is above this one."""
    values = [figure["floors"][figure["highest_floor"]]["value"] for figure in figures if figure["highest_floor"]]
    known = [value for value in values if finite(value) is not None]
    if not known:
        return None
    return float(max(known) if figures[0]["direction"] == "up" else min(known))
