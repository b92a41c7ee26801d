"""The figures of a report as CSV: one row for each figure and subject."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]

COLUMNS = ("name", "evaluator", "subject", "value", "low", "high", "n", "clusters", "unit", "direction")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""


def to_csv(report: Document) -> str:
    """Render the figures of a report document; what is unknown is empty, numbers are not rounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(report))
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
        cell["n"], cell["clusters"], _text(row["unit"]), _text(row["direction"]),
    ]  # fmt: skip


def _text(value: str) -> str:
    """Keep a name from outside from being computed by a spreadsheet."""
    return f"'{value}" if value.startswith(FORMULA) else value
