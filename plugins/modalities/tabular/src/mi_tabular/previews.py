"""What a person can see of rows: tables."""

from __future__ import annotations

import csv
import html
from collections.abc import Mapping
from pathlib import Path

from mi_tabular.table import Table
from micore.files import atomic_path, safe_name

NOT_KNOWN = "?"


def export_tables(samples: Mapping[str, Table], directory: Path) -> list[Path]:
    """Write a CSV file with the rows of each key; return the paths.

    Raises: StorageError.
    """
    found = []
    for key, table in samples.items():
        path = directory / f"{safe_name(key)}.csv"
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(column.name for column in table.schema.columns)
            writer.writerows([_cell(value) for value in record.values()] for record in table.records())
        found.append(path)
    return found


def fragment(table: Table, limit: int, truth: Table | None = None) -> str:
    """Return an HTML table of up to ``limit`` rows; with a truth (one row) sensitive values are marked."""
    sensitive = table.schema.sensitive
    shown = table[: max(limit, 0)]
    actual = None if truth is None else truth.records()[0][sensitive]
    head = "".join(f'<th scope="col">{html.escape(column.name)}</th>' for column in table.schema.columns)
    body = "".join(
        "<tr>" + "".join(_shown(name, value, sensitive, actual) for name, value in record.items()) + "</tr>"
        for record in shown.records()
    )
    return f'<table class="mi-rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _shown(name: str, value: str | float | None, sensitive: str, actual: str | float | None) -> str:
    text = html.escape(_cell(value))
    if name != sensitive:
        return f"<td>{text}</td>"
    mark = "" if actual is None else " (right)" if value == actual else f" (in truth {html.escape(_cell(actual))})"
    return f"<td><strong>{text}</strong>{mark}</td>"


def _cell(value: str | float | None) -> str:
    if value is None:
        return NOT_KNOWN
    return value if isinstance(value, str) else f"{value:.6g}"
