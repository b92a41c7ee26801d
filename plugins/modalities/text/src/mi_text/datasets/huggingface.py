"""Texts of the ``datasets`` library: ``hf-text:PATH`` or ``hf-text:NAME``.

A directory is read whether it was saved by ``save_to_disk`` or holds parquet, CSV, JSON or text files. A name is
looked up by ``datasets``; set ``HF_HUB_OFFLINE=1`` to take it from its cache only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from mi_text.datasets.dataset import TextDataset
from mi_text.datasets.own import NONE, OwnOptions, Rows, make_dataset, require_column
from micore.errors import DataError
from micore.kit.dataset_options import read_options

_NO_LABEL = -1
"""What ``datasets`` gives for a class that is hidden."""


class HuggingFaceOptions(OwnOptions):
    """Options of ``hf-text``."""

    config: str | None = Field(None, description="Configuration of the data set, where it has several")
    split: str = Field("train", description="Split that the private texts come from")
    text: str = Field("text", description="Column of the texts")
    label: str | None = Field(None, description="Column of the classes; default: all texts are of one class")
    holdout: float | str = Field(
        0.1, union_mode="left_to_right", description="Share of the texts to hold out, or a split such as test"
    )
    public: float | str = Field(
        NONE,
        union_mode="left_to_right",
        description="Texts of the adversary: another split, a share of this one, or none",
    )


def open_hf_text(location: str | None, **options: Any) -> TextDataset:
    """Open a data set through ``datasets``.

    Raises: DataError when the library or the data set is missing, or a split, column, class or text is at fault.
    """
    if not location:
        raise DataError("hf-text needs a data set", hint="hf-text:PATH or hf-text:NAME")
    settings = read_options(HuggingFaceOptions, "hf-text", options)
    _require_other_splits(settings)
    splits = _load(location, settings)

    def part(given: float | str) -> Rows | float:
        return given if isinstance(given, float) else _read(location, splits, given, settings)

    return make_dataset(
        f"hf-text:{location}",
        _read(location, splits, settings.split, settings),
        settings,
        holdout=part(settings.holdout),
        public=None if settings.public == NONE else part(settings.public),
    )


def _require_other_splits(settings: HuggingFaceOptions) -> None:
    named = [settings.split, settings.holdout, settings.public]
    for option, value in (("holdout", settings.holdout), ("public", settings.public)):
        if isinstance(value, str) and named.count(value) > 1:
            raise DataError(f"hf-text: {option}={value} is another split too", hint=f"{option}=0.2 cuts a share off")


def _import() -> Any:
    try:
        import datasets  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise DataError("hf-text needs the package `datasets`", hint="pip install 'mi-text[hf]'") from error
    return datasets


def _load(location: str, settings: HuggingFaceOptions) -> Mapping[str, Any]:
    library = _import()
    path = Path(location).expanduser()
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    try:
        if saved:
            loaded = library.load_from_disk(str(path))
        else:
            loaded = library.load_dataset(str(path) if path.is_dir() else location, settings.config)
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        raise DataError(
            f"{location} cannot be loaded: {error}",
            hint="a directory that exists, or a data set in the cache",
        ) from error
    return loaded if isinstance(loaded, dict) else {settings.split: loaded}


def _read(location: str, splits: Mapping[str, Any], split: str, settings: HuggingFaceOptions) -> Rows:
    if split not in splits:
        raise DataError(f"{location} has no split {split!r}", hint="it has " + ", ".join(splits))
    table, name = splits[split], f"{location}, split {split}"
    require_column(name, settings.text, table.column_names, "text")
    texts = list(table[settings.text])
    if not texts:
        raise DataError(f"{name} has no texts", hint="it is empty")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{name}, row {row}: {settings.text!r} is {type(text).__name__}, not a text")
        if not text.strip():
            raise DataError(f"{name}, row {row}: {settings.text!r} is empty", hint="remove the row")
    return Rows(name, tuple(text.strip() for text in texts), _labels(table, name, settings.label))


def _labels(table: Any, name: str, column: str | None) -> tuple[str, ...] | None:
    if column is None:
        return None
    require_column(name, column, table.column_names, "label")
    values = list(table[column])
    if any(value is None or value == _NO_LABEL for value in values):
        raise DataError(f"{name}: some rows have no {column}", hint="choose a split with labels")
    if not all(isinstance(value, int | str) for value in values):
        raise DataError(f"{name}: column {column!r} holds neither integers nor texts")
    names = getattr(table.features[column], "names", None)
    return tuple(str(value) if names is None else str(names[value]) for value in values)
