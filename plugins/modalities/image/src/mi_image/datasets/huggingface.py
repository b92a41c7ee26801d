"""Data sets of the ``datasets`` library: ``hf:PATH`` or ``hf:NAME``.

A directory is read whether it was saved by ``save_to_disk`` or holds parquet files or an image folder. A name
is looked up by ``datasets``; set ``HF_HUB_OFFLINE=1`` to take it from its cache only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mi_image.datasets.dataset import ImageDataset, judged_others
from mi_image.datasets.decoding import decode, stack
from mi_image.datasets.own import NONE, OwnOptions, assign_classes, hold_out
from mi_image.datasets.pools import Pool
from mi_image.splits import ImageSplit
from micore.errors import DataError
from micore.kit.dataset_options import read_options

_LABEL_NAMES = ("label", "labels", "fine_label")


class HuggingFaceOptions(OwnOptions):
    """Options of ``hf``."""

    config: str | None = Field(None, description="Configuration of the data set, where it has several")
    split: str = Field("train", description="Split that the private images come from")
    holdout: float = Field(0.2, ge=0, lt=1, description="Share of each private class to hold out")
    holdout_split: str | None = Field(None, description="Split to hold out instead, such as test")
    public_split: str | None = Field(None, description="Split of the public images, if not the private one; or none")
    image_column: str | None = Field(None, description="Column of the images; default: the only image column")
    label_column: str | None = Field(None, description="Column of the classes; default: the only class column")


@dataclass(frozen=True)
class _Table:
    """One split: undecoded images, labels, and the names of all classes."""

    name: str
    images: Any
    labels: Tensor
    classes: tuple[str, ...]

    def read(self, labels: Sequence[int], settings: HuggingFaceOptions) -> Pool:
        """Decode the images of some classes, which become labels 0, 1, 2..."""
        rows = torch.nonzero(torch.isin(self.labels, torch.tensor(labels))).squeeze(1)
        images = stack((self._decode(row, settings) for row in rows.tolist()), settings.size, settings.channels)
        return Pool(images, self.labels[rows], self.classes).keep(labels)

    def _decode(self, row: int, settings: HuggingFaceOptions) -> Tensor:
        cell, name = self.images[row], f"{self.name}, row {row}"
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise DataError(f"{name} has no image")
        source = Path(cell["path"]) if cell["bytes"] is None else BytesIO(cell["bytes"])
        return decode(source, name, size=settings.size, channels=settings.channels)


def open_huggingface(location: str | None, **options: Any) -> ImageDataset:
    """Open a data set through ``datasets``.

    Raises: DataError when the library or the data set is missing, or a split, column, class or image is at
    fault.
    """
    if not location:
        raise DataError("hf needs a data set", hint="hf:PATH or hf:NAME")
    settings = read_options(HuggingFaceOptions, "hf", options)
    library = _import()
    splits = _load(library, location, settings)
    table = _table(library, location, splits, settings.split, settings)
    _require_disjoint_splits(settings)
    separate = settings.public_split not in (None, settings.split)
    private_labels, public_labels = assign_classes(location, table.classes, settings, separate=separate)
    share = 0.0 if settings.holdout_split else settings.holdout
    private, holdout = hold_out(location, table.read(private_labels, settings), share, settings.seed)
    if settings.holdout_split:
        held = _table(library, location, splits, settings.holdout_split, settings)
        holdout = _same_classes(held, table).read(private_labels, settings)
    source = table
    if separate and settings.public_split != NONE:
        source = _same_classes(_table(library, location, splits, str(settings.public_split), settings), table)
    public, others = _read_public(source, private_labels, public_labels, settings)
    return ImageDataset(
        name=f"hf:{location}", private=private, holdout=holdout, public=public, others=others,
        options=settings.model_dump(mode="json"),
    )  # fmt: skip


def _require_disjoint_splits(settings: HuggingFaceOptions) -> None:
    held = settings.holdout_split
    if held == settings.split:
        raise DataError(f"hf: split {held!r} is both private and held out", hint="holdout=0.2 cuts a share off it")
    if held is not None and held == settings.public_split and settings.public_classes is None:
        raise DataError(f"hf: split {held!r} is both held out and public", hint="public_classes=... sets classes apart")


def _read_public(
    table: _Table, private: list[int], public: list[int], settings: HuggingFaceOptions
) -> tuple[ImageSplit | None, Pool | None]:
    """Return the public images, and those of them that teach evaluator models further classes."""
    if settings.public_split == NONE:
        return None, None
    labels = public or list(range(len(table.classes)))
    pool = table.read(labels, settings)
    shared = [index for index, label in enumerate(labels) if label in private]
    return pool.unlabelled(), judged_others(pool, shared, "hf-judging", settings.seed)


def _import() -> Any:
    try:
        import datasets  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise DataError("hf needs the package `datasets`", hint="pip install 'mi-image[hf]'") from error
    return datasets


def _load(library: Any, location: str, settings: HuggingFaceOptions) -> Mapping[str, Any]:
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


def _table(library: Any, location: str, splits: Mapping[str, Any], split: str, settings: HuggingFaceOptions) -> _Table:
    if split not in splits:
        raise DataError(f"{location} has no split {split!r}", hint="it has " + ", ".join(splits))
    rows = splits[split]
    image = settings.image_column or _only(rows, library.Image, (), "image_column")
    label = settings.label_column or _only(rows, library.ClassLabel, _LABEL_NAMES, "label_column")
    for column in (image, label):
        if column not in rows.column_names:
            raise DataError(f"{location} has no column {column!r}", hint="it has " + ", ".join(rows.column_names))
    name = f"{location}, split {split}"
    try:
        cells = rows.select_columns([image]).cast_column(image, library.Image(decode=False))[image]
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(f"{name}: column {image!r} does not hold images: {error}") from error
    labels, classes = _read_labels(rows, label, name)
    return _Table(name, cells, labels, classes)


def _only(rows: Any, kind: type, names: Sequence[str], option: str) -> str:
    found: list[str] = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
    found = found or [name for name in names if name in rows.column_names]
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} columns could be it" if found else "no column looks like it"
    raise DataError(f"{option}: {problem}", hint=f"{option}=..., one of " + ", ".join(rows.column_names))


def _read_labels(rows: Any, column: str, name: str) -> tuple[Tensor, tuple[str, ...]]:
    values = list(rows[column])
    if any(value is None or value == -1 for value in values):
        raise DataError(f"{name}: some rows have no {column}", hint="choose a split with labels")
    names = getattr(rows.features[column], "names", None)
    if names is not None:
        return torch.tensor(values, dtype=torch.int64), tuple(names)
    if not all(isinstance(value, int | str) for value in values):
        raise DataError(f"{name}: column {column!r} holds neither integers nor texts")
    distinct = sorted(set(values))
    number = {value: label for label, value in enumerate(distinct)}
    return torch.tensor([number[value] for value in values], dtype=torch.int64), tuple(str(v) for v in distinct)


def _same_classes(table: _Table, reference: _Table) -> _Table:
    """Number the classes of another split as in the private one; new classes come last."""
    new = tuple(name for name in table.classes if name not in reference.classes)
    classes = reference.classes + new
    numbers = torch.tensor([classes.index(name) for name in table.classes], dtype=torch.int64)
    return _Table(table.name, table.images, numbers[table.labels], classes)
