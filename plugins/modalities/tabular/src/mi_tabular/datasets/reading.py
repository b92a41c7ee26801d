"""Reading tables: delimited text whose first row names the columns, in UTF-8; ``.gz`` is read too."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, cast

import torch

from mi_tabular.datasets.parts import Records, coded
from mi_tabular.schema import Column, Schema
from micore.errors import DataError

MISSING = ("", "?", "na", "nan", "null", "none", "n/a")
"""What stands in a cell that has no value, in lower case."""

UNKNOWN = "(missing)"
"""The category of such cells, where they are kept."""

FEW, MANY = 10, 60
"""Up to so many different numbers are categories; so many categories a column may have."""


@dataclass(frozen=True)
class Lines:
    """A table as text: the cells of each column by its name, and in which line of the file each row ends."""

    path: Path
    columns: Mapping[str, list[str]]
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def require(self, column: str, option: str) -> list[str]:
        """Return the cells of a column.

        Raises: DataError when there is no such column.
        """
        if column not in self.columns:
            raise DataError(
                f"{self.path}, line 1: no column {column!r}", hint=f"{option}: one of {', '.join(self.columns)}"
            )
        return self.columns[column]

    def named(self, names: Mapping[str, str]) -> Lines:
        """Return some of the columns, each under a new name.

        Raises: DataError when one is missing.
        """
        return replace(self, columns={new: self.require(name, "the columns") for name, new in names.items()})

    def mapped(self, name: str, change: Callable[[str], str]) -> Lines:
        """Change the cells of a column; those without a value stay."""
        changed = {cell: cell if is_missing(cell) else change(cell) for cell in set(self.columns[name])}
        return replace(self, columns={**self.columns, name: [changed[cell] for cell in self.columns[name]]})

    def whole(self, names: Iterable[str] | None = None) -> Lines:
        """Return the rows that have a value in each of some columns, or of all."""
        missing: set[int] = set()
        for name in self.columns if names is None else names:
            missing.update(missing_rows(self.columns[name]))
        rows = [row for row in range(len(self)) if row not in missing]
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        return replace(self, columns=columns, numbers=[self.numbers[row] for row in rows])


def is_missing(cell: str) -> bool:
    """Tell whether a cell has no value."""
    return cell.lower() in MISSING


def missing_rows(cells: Sequence[str]) -> list[int]:
    """Return the rows of a column whose cells have no value."""
    empty = {cell for cell in set(cells) if is_missing(cell)}
    return [row for row, cell in enumerate(cells) if cell in empty] if empty else []


def read_lines(path: Path, columns: Sequence[str] = ()) -> Lines:
    """Read a table; a ``.tsv`` file has tabs between its columns. columns: names that are used instead of the file's.

    Raises: DataError that names the file and the line at fault.
    """
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    try:
        with _opened(path) as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, ())]
            rows, numbers = [], []
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} cells, the first line has {len(header)}"
                    )
                rows.append(row)
                numbers.append(reader.line_num)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", hint="csv-table:PATH") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="a table as delimited text, in UTF-8") from error
    header = list(columns) or header
    _check_header(path, header)
    if rows and len(rows[0]) != len(header):
        raise DataError(f"{path}, line 1: {len(rows[0])} columns, not {len(header)}")
    cells = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Lines(
        path, {name: list(map(str.strip, part)) for name, part in zip(header, cells, strict=True) if name}, numbers
    )


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _check_header(path: Path, header: Sequence[str]) -> None:
    doubled = next((name for name in header if name and header.count(name) > 1), None)
    if not header or doubled is not None:
        what = "no columns" if not header else f"column {doubled!r} stands there twice"
        raise DataError(f"{path}, line 1: {what}", hint="the first row names the columns")


def to_records(lines: Lines, label: str, sensitive: str, *, keeps_missing: bool = False) -> Records:
    """Code a table: what all cells of a column say decides what it is.

    Raises: DataError that names file, line and column: a cell without a value (unless these are kept as a category), a
    column with one value, one with too many categories, a sensitive one of numbers, labels of one class, no rows.
    """
    lines.require(label, "-D label")
    lines.require(sensitive, "-D sensitive")
    if label == sensitive:
        raise DataError(f"{lines.path}: {label!r} cannot be both label and sensitive")
    if not len(lines):
        raise DataError(f"{lines.path}: no rows")
    if not keeps_missing:
        _check_complete(lines)
    columns = tuple(_column(lines, name, as_category=name == sensitive) for name in lines.columns if name != label)
    classes = tuple(sorted(set(lines.columns[label])))
    if len(classes) < 2 or len(classes) > MANY:
        raise DataError(f"{lines.path}: the label {label!r} has {len(classes)} values", hint=f"2 to {MANY}")
    return coded_as(lines, Schema(columns, sensitive), label, classes)


def coded_as(lines: Lines, schema: Schema, label: str, classes: Sequence[str]) -> Records:
    """Code a table by a schema and classes that are known.

    Raises: DataError that names file, line and column: a missing column, an unknown category, a cell that is no number.
    """
    values = {}
    for column in schema.columns:
        cells = lines.require(column.name, "the columns")
        if column.is_number:
            values[column.name] = _numbers(lines, column.name, cells)
        else:
            values[column.name] = _places(lines, column.name, cells, column.categories)
    places = _places(lines, label, lines.require(label, "-D label"), classes)
    labels = torch.tensor(places, dtype=torch.int64)
    return Records(schema, coded(schema.columns, values), labels, tuple(classes))


def _check_complete(lines: Lines) -> None:
    first = {name: rows[0] for name, cells in lines.columns.items() if (rows := missing_rows(cells))}
    if first:
        name = min(first, key=lambda column: first[column])
        row = first[name]
        raise DataError(
            f"{lines.path}, line {lines.numbers[row]}: column {name!r} has no value ({lines.columns[name][row]!r})",
            hint="-D missing=category keeps such cells as a value of their own, -D missing=drop leaves rows out",
        )


def _column(lines: Lines, name: str, *, as_category: bool) -> Column:
    cells = lines.columns[name]
    different = {UNKNOWN if is_missing(cell) else cell for cell in set(cells)}
    if len(different) == 1:
        raise DataError(f"{lines.path}: column {name!r} is always {cells[0]!r}", hint=f"-D drop={name}")
    numbers = [_number(cell) for cell in different]
    if len(different) > FEW and not as_category and all(number is not None for number in numbers):
        found = [number for number in numbers if number is not None]
        return Column(name, low=min(found), high=max(found))
    if len(different) > MANY or (as_category and len(different) > FEW):
        most = FEW if as_category else MANY
        row = next(place for place, cell in enumerate(cells) if _number(cell) is None or as_category)
        raise DataError(
            f"{lines.path}, line {lines.numbers[row]}: column {name!r} holds {cells[row]!r} and has {len(different)} "
            f"values, which are too many for categories ({most})",
            hint="a sensitive column of few values" if as_category else f"-D drop={name}, or numbers alone",
        )
    return Column(name, tuple(sorted(different, key=_by_number)))


def _by_number(cell: str) -> tuple[float, str]:
    number = _number(cell)
    return (math.inf if number is None else number, cell)


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(lines: Lines, name: str, cells: Sequence[str]) -> list[float]:
    read = {cell: _number(cell) for cell in set(cells)}
    found = []
    for row, cell in enumerate(cells):
        number = read[cell]
        if number is None:
            raise DataError(
                f"{lines.path}, line {lines.numbers[row]}: column {name!r} holds {cell!r}, which is no number"
            )
        found.append(number)
    return found


def _places(lines: Lines, name: str, cells: Sequence[str], categories: Sequence[str]) -> list[int]:
    known = {category: place for place, category in enumerate(categories)}
    places = {cell: known.get(UNKNOWN if is_missing(cell) and cell not in known else cell) for cell in set(cells)}
    found = []
    for row, cell in enumerate(cells):
        place = places[cell]
        if place is None:
            raise DataError(
                f"{lines.path}, line {lines.numbers[row]}: column {name!r} holds {cell!r}, which is none of its values",
                hint="known: " + ", ".join(categories[:12]),
            )
        found.append(place)
    return found
