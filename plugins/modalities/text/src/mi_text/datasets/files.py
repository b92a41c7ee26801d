"""Files of the user's own texts: ``csv:PATH``, ``jsonl:PATH``, ``txt:PATH``, in UTF-8; ``.gz`` is read too.

A ``.tsv`` file has tabs between its columns. Blank lines of ``.jsonl`` and ``.txt`` files are passed over.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from mi_text.datasets.dataset import TextDataset
from mi_text.datasets.own import NONE, OwnOptions, Rows, make_dataset, require_column
from micore.errors import DataError
from micore.kit.dataset_options import read_options

_MARK = "\ufeff"
"""What some programs put in front of UTF-8."""


class TxtOptions(OwnOptions):
    """Options of ``txt``."""

    holdout: float = Field(0.1, ge=0, lt=1, description="Share of the texts to hold out")


class JsonlOptions(TxtOptions):
    """Options of ``jsonl``."""

    text: str = Field("text", description="Column or field of the texts")
    label: str | None = Field(None, description="Column or field of the classes; default: all texts are of one class")


class CsvOptions(JsonlOptions):
    """Options of ``csv``."""

    columns: str | None = Field(
        None, description="Names of the columns, such as label,title,text, of a file without header"
    )


def open_txt(location: str | None, **options: Any) -> TextDataset:
    """Open a file with one text per line.

    Raises: DataError that names the file, line or option at fault.
    """
    settings = read_options(TxtOptions, "txt", options)
    return _open("txt", location, settings, lambda path, other: _read_txt(path))


def open_jsonl(location: str | None, **options: Any) -> TextDataset:
    """Open a file with one JSON object per line.

    Raises: DataError that names the file, line, field or option at fault.
    """
    settings = read_options(JsonlOptions, "jsonl", options)
    return _open("jsonl", location, settings, lambda path, other: _read_jsonl(path, settings, other=other))


def open_csv(location: str | None, **options: Any) -> TextDataset:
    """Open a table whose first row has the names of the columns.

    Raises: DataError that names the file, line, column or option at fault.
    """
    settings = read_options(CsvOptions, "csv", options)
    return _open("csv", location, settings, lambda path, other: _read_csv(path, settings, other=other))


def _open(kind: str, location: str | None, settings: TxtOptions, read: Callable[[Path, bool], Rows]) -> TextDataset:
    """Read the file and the public one; ``read`` takes whether it is the other one, which needs no labels."""
    if not location:
        raise DataError(f"{kind} needs a file", hint=f"{kind}:PATH")
    rows = read(Path(location).expanduser(), False)
    public: Rows | float | None = None
    if isinstance(settings.public, float):
        public = settings.public
    elif settings.public != NONE:
        public = read(Path(settings.public).expanduser(), True)
    return make_dataset(f"{kind}:{location}", rows, settings, holdout=settings.holdout, public=public)


# lines ----------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[str]:
    """Decode a file line by line.

    Raises: DataError when it cannot be read, or names the line that is not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                text = line.decode("utf-8")
                yield text.removeprefix(_MARK) if number == 1 else text
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8", hint="store the file as UTF-8") from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", hint="give the path of a file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="give the path of a whole file") from error


def _rows(path: Path, texts: list[str], labels: list[str] | None) -> Rows:
    if not texts:
        raise DataError(f"{path} has no texts", hint="it is empty")
    return Rows(str(path), tuple(texts), None if labels is None else tuple(labels))


def _filled(place: str, column: str, value: object) -> str:
    """Return a text or a class without the spaces around.

    Raises: DataError when there is nothing in it, or it is no text.
    """
    if not isinstance(value, str):
        raise DataError(f"{place}: {column!r} is {type(value).__name__}, not a text")
    if not value.strip():
        raise DataError(f"{place}: {column!r} is empty", hint="remove the row")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise DataError(
            f"{place}: {column!r} has half of a character", hint="an escape such as \\ud83d needs a second one"
        )
    return value.strip()


# forms ----------------------------------------------------------------------------------------------------


def _read_txt(path: Path) -> Rows:
    return _rows(path, [line.strip() for line in _lines(path) if line.strip()], None)


def _read_jsonl(path: Path, settings: JsonlOptions, *, other: bool) -> Rows:
    texts: list[str] = []
    labels: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        item = _object(line, place)
        require_column(place, settings.text, list(item), "text")
        texts.append(_filled(place, settings.text, item[settings.text]))
        if settings.label is None or (other and settings.label not in item):
            continue
        require_column(place, settings.label, list(item), "label")
        labels.append(_filled(place, settings.label, _class_name(item[settings.label])))
    return _rows(path, texts, labels if len(labels) == len(texts) else None)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no JSON: {error}", hint='such as {"text": "..."}') from error
    if not isinstance(item, dict):
        raise DataError(f"{place}: no JSON object", hint='such as {"text": "..."}')
    return item


def _class_name(value: object) -> object:
    """Return an integer as the text that it is as the name of a class."""
    return str(value) if isinstance(value, int) else value


def _read_csv(path: Path, settings: CsvOptions, *, other: bool) -> Rows:
    rows = _csv_rows(path)
    if settings.columns is None:
        _, names = next(rows, (1, []))
        if not names:
            raise DataError(f"{path} has no texts", hint="it is empty")
    else:
        names = settings.columns.split(",")
    columns = [name.strip() for name in names]
    wanted = [settings.text]
    require_column(str(path), settings.text, columns, "text")
    if settings.label is not None and not (other and settings.label not in columns):
        require_column(str(path), settings.label, columns, "label")
        wanted.append(settings.label)
    cells = [[_cell(path, line, row, columns, name) for name in wanted] for line, row in rows if row]
    labels = [row[1] for row in cells] if len(wanted) > 1 else None
    return _rows(path, [row[0] for row in cells], labels)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give each row with the line that it begins on."""
    separator = "\t" if ".tsv" in path.suffixes else ","
    reader = csv.reader(_lines(path), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}", hint="quotes inside of quotes are doubled") from error


def _cell(path: Path, line: int, row: list[str], columns: list[str], name: str) -> str:
    place = f"{path}, line {line}"
    if len(row) != len(columns):
        raise DataError(f"{place}: {len(row)} cells in a row of {len(columns)} columns", hint=", ".join(columns))
    return _filled(place, name, row[columns.index(name)])
