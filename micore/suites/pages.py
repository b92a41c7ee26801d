"""The tables of a benchmark: JSON, Markdown, one HTML file, and a part of a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from micore.errors import UsageError
from micore.files import write_json, write_text
from micore.report.markdown import escape
from micore.suites.curves import budget_tables
from micore.suites.matrix import matrix_tables
from micore.suites.texts import (
    CAPTION,
    SEEDS_CAPTION,
    figure_lines,
    judge_rows,
    machine_lines,
    overlap_lines,
    row_cells,
    row_columns,
    seed_cells,
    seed_columns,
    status_text,
    version_line,
)

Document = Mapping[str, Any]
Tables = Sequence[Mapping[str, Any]]


def write_pages(place: Path, document: Document, page: Path | None = None) -> None:
    """Write ``bench.json``, ``bench.md`` and ``bench.html``, and the tables into a page, each atomically.

    Raises: StorageError; UsageError when the page lacks its markers.
    """
    from micore.suites.html import to_html

    tables = drawn_tables(document)  # once: pictures take longer than all else
    write_json(place / "bench.json", document)
    write_text(place / "bench.md", to_markdown(document, tables))
    write_text(place / "bench.html", to_html(document, tables))
    if page is not None:
        pictures = _write_pictures(page, document["name"], tables)
        part = _part(document, tables, pictures, every_row=document["list_rows"])
        write_text(page, _with_part(page, document["name"], part))


def _write_pictures(page: Path, name: str, tables: Tables) -> list[str]:
    """Write the curves of a suite beside a page; return their names."""
    names = []
    for number, table in enumerate(tables, start=1):
        if table["picture"] is not None:
            names.append(f"{page.stem}-{name}-{number}.svg")
            write_text(page.parent / names[-1], table["picture"])
    return names


# Markdown --------------------------------------------------------------------------------------------


def to_markdown(document: Document, tables: Tables) -> str:
    """Render everything but the samples and the pictures. tables: those of `drawn_tables`."""
    lines = dict.fromkeys(row[kind] for row in document["rows"] for kind in ("train_command", "command"))
    commands = "\n".join(f"    {line}" for line in lines)
    return f"# Benchmark {document['name']}\n\n{_part(document, tables)}\n\n## Commands of the rows\n\n{commands}\n"


def drawn_tables(document: Document) -> list[dict[str, Any]]:
    """Return the tables that have a picture: recovery over budgets, and defenses beside each other."""
    return [*budget_tables(document), *matrix_tables(document)]


def _part(document: Document, tables: Tables, pictures: Sequence[str] = (), *, every_row: bool = True) -> str:
    """Return the tables and the circumstances, without a heading. pictures: files with the curves, if there are any."""
    return "\n\n".join(_blocks(document, tables, pictures, every_row=every_row))


def _blocks(document: Document, tables: Tables, pictures: Sequence[str], *, every_row: bool) -> Iterator[str]:
    figures = document["columns"]
    if every_row:
        yield _table(row_columns(figures), (row_cells(row, figures, _figure) for row in document["rows"]))
        yield CAPTION
    if document["seeds"]:
        yield _table(seed_columns(figures), (seed_cells(row, figures, _figure) for row in document["seeds"]))
        yield SEEDS_CAPTION
    for table, picture in zip_longest(tables, pictures):
        yield f"**{escape(table['title'])}**"
        if picture:
            yield f"![{escape(table['title'])}]({picture})"
        yield _table(table["columns"], table["rows"])
        if "legend" in table:
            yield escape(table["legend"])
    failed = [f"- {escape(row['name'])}: {escape(status_text(row))}" for row in document["rows"] if row["error"]]
    if failed:
        yield "Rows that failed:\n\n" + "\n".join(failed)
    judges = judge_rows(document)
    if judges:
        yield _table(("judged target", "judge", "architecture", "identity", "held-out accuracy"), judges)
    overlaps = [f"- {escape(line)}" for line in overlap_lines(document)]
    if overlaps:
        yield "Overlap with private data:\n\n" + "\n".join(overlaps)
    yield f"Command: `{document['command']}`."
    yield f"Machine: {escape('; '.join(machine_lines(document)) or 'unknown')}."
    yield f"Versions: {escape(version_line(document) or 'unknown')}."


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for cells in rows:
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines)


class Marked(str):
    """A cell that is Markdown already."""

    __slots__ = ()


def _cell(text: str) -> str:
    return text if isinstance(text, Marked) else _escaped(text)


def _escaped(text: str) -> str:
    """Escape a text; brackets of intervals are left alone, since no cell has a bracket before a parenthesis."""
    return escape(text).replace("\\[", "[").replace("\\]", "]")


def _figure(figure: Document | None) -> str:
    """Write a figure: bold where it beats every floor, its floors and its ceiling below."""
    if figure is None:
        return ""
    first, *others = map(_escaped, figure_lines(figure))
    return Marked("<br>".join([f"**{first}**" if figure["beats_floor"] else first, *others]))


# part of a page ----------------------------------------------------------------------------------------


def check_page(page: Path, name: str) -> None:
    """Check before anything runs that a page has the markers of a suite.

    Raises: UsageError.
    """
    _with_part(page, name, "")


def _with_part(page: Path, name: str, part: str) -> str:
    """Return a page with what stands between the markers of a suite replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the page {page} cannot be read: {error}", hint="give a Markdown file to --write") from error
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UsageError(f"{page} has no place for the tables of {name}", hint=f"put `{begin}` and `{end}` into it")
    return f"{before}{begin}\n{part}\n{end}{after}"
