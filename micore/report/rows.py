"""The figures of a report as CSV: one row for each figure and subject, then what was spent and what overlaps."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]

COLUMNS = ("name", "evaluator", "subject", "value", "low", "high", "n", "clusters", "unit", "direction", "role")
COST, OVERLAP = "cost", "overlap"
SPENT = {"queries": "samples", "gradients": "samples", "seconds": "s", "first_success": "queries"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""


def to_csv(report: Document) -> str:
    """Render the figures of a report document; what is unknown is empty, numbers are not rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(report))
    writer.writerows(_costs(report["cost"]))
    writer.writerows(_overlaps(report["data"]["overlap"]))
    return stream.getvalue()


def _rows(report: Document) -> Iterator[list[object]]:
    subjects = [subject["name"] for subject in report["results"]["subjects"]]
    for row in report["results"]["rows"]:
        for subject in subjects:
            if subject in row["cells"]:
                yield _row(row, subject, row["cells"][subject])


def _row(row: Document, subject: str, cell: Document) -> list[object]:
    bounds = cell["interval"] or {"low": None, "high": None}
    return [
        _text(row["name"]), _text(row["evaluator"]), _text(subject), cell["value"], bounds["low"], bounds["high"],
        cell["n"], cell["clusters"], _text(row["unit"]), _text(row["direction"]), _role(row, subject),
    ]  # fmt: skip


def _role(row: Document, subject: str) -> str:
    """Say whether a subject is the attack itself or bounds it."""
    roles = {"attack": "attack", row["ceiling"]: "ceiling", **dict.fromkeys(row["floors"], "floor")}
    return roles.get(subject, "")


def _costs(cost: Document) -> Iterator[list[object]]:
    """Yield what was spent, as figures of the evaluator ``cost``; what is not known is left out."""
    rows = [(row["part"], row) for row in cost["parts"]] + [(f"case {row['id']}", row) for row in cost["cases"]]
    rows += [("each success", cost["success"]["each"] or {})]
    rows += [("each success beyond the floor", cost["success"]["beyond_floor"] or {})]
    for subject, row in rows:
        for name, unit in SPENT.items():
            if row.get(name) is not None:
                yield [name, COST, _text(subject), row[name], *[None] * 4, unit, "none", ""]


def _overlaps(found: Document | None) -> Iterator[list[object]]:
    """Yield what the audit of overlap counted, as figures of the evaluator ``overlap``; nothing where nobody looked."""
    splits = {name: counts for name, counts in (found or {}).items() if isinstance(counts, Mapping)}
    for split, counts in (splits or {"public": found or {}}).items():
        for name, value in counts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield [_text(name), OVERLAP, _text(split), value, *[None] * 4, "", "none", ""]


def _text(value: str) -> str:
    """Keep a name from outside from being computed by a spreadsheet."""
    return f"'{value}" if value.startswith(FORMULA) else value
