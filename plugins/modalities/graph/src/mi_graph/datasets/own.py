"""A user's own graph: a list of edges, and a table of nodes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from micore.errors import DataError

ID, LABEL = "id", "label"


@dataclass(frozen=True, kw_only=True)
class OwnGraph:
    """What the two files hold: edges (2, m) as they stand there, features (n, F), labels (n,), names of classes."""

    edges: Tensor
    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def read_own(edges: Path, nodes: Path, *, has_weights: bool) -> OwnGraph:
    """Read both files; without features nodes have their number, one-hot.

    Raises: DataError that names file and line.
    """
    places, labels, features = _nodes(nodes)
    classes = tuple(sorted(set(labels)))
    return OwnGraph(
        edges=_edges(edges, places, has_weights), classes=classes,
        features=torch.tensor(features) if features[0] else torch.eye(len(places)),
        labels=torch.tensor([classes.index(label) for label in labels]),
    )  # fmt: skip


def _nodes(path: Path) -> tuple[dict[str, int], list[str], list[list[float]]]:
    rows = list(csv.reader(_lines(path)))
    columns = rows[0] if rows else []
    if ID not in columns or LABEL not in columns or len(rows) < 2:
        raise DataError(f"{path}: the first line must name the columns {ID} and {LABEL}, then nodes follow")
    places: dict[str, int] = {}
    labels, features = [], []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(columns):
            raise DataError(f"{path}, line {number}: {len(row)} values for {len(columns)} columns")
        held = dict(zip(columns, row, strict=True))
        name = held.pop(ID)
        if name in places:
            raise DataError(f"{path}, line {number}: node {name!r} stands there twice")
        places[name] = len(places)
        labels.append(held.pop(LABEL))
        features.append([_number(value, f"{path}, line {number}, column {column}") for column, value in held.items()])
    return places, labels, features


def _number(value: str, where: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {value!r} is no finite number", hint="features are numbers")
    return number


def _edges(path: Path, places: dict[str, int], has_weights: bool) -> Tensor:
    found = []
    for number, line in enumerate(_lines(path), start=1):
        parts = line.replace(",", " ").split()
        if not parts or parts[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(parts) == 3 and not has_weights:
            raise DataError(
                f"{where}: a third value, which may be a weight", hint="-D weights=true leaves weights aside"
            )
        if len(parts) not in (2, 3):
            raise DataError(f"{where}: {len(parts)} values, not the ids of two nodes")
        unknown = [part for part in parts[:2] if part not in places]
        if unknown:
            raise DataError(f"{where}: node {unknown[0]!r} is not in the table of nodes")
        found.append([places[part] for part in parts[:2]])
    if not found:
        raise DataError(f"{path}: no edge")
    return torch.tensor(found, dtype=torch.int64).T


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="a UTF-8 text file") from error
    return iter(text.splitlines())
