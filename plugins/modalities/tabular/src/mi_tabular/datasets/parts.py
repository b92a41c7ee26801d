"""From one table of records to private, held-out and public rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_tabular.datasets.dataset import TableDataset, TableSplit
from mi_tabular.schema import Column, Schema
from mi_tabular.table import Table
from micore.errors import DataError
from micore.kit.dataset_options import DatasetOptions
from micore.runtime import Random, derive_seed

LEAST = 10
"""Rows that each part has at least: with fewer nothing can be said of it."""


class PartOptions(DatasetOptions):
    """How a table becomes a setting."""

    private: int | None = Field(None, ge=LEAST, description="Rows that the target learns from; default: 40 % of them")
    holdout: int | None = Field(None, ge=LEAST, description="Rows of the same table that it never sees; default: 30 %")
    public: int | None = Field(None, ge=LEAST, description="Rows that the adversary has; default: all others")
    known: Literal["rows", "frequencies"] = Field(
        "rows", description="Of the sensitive column: its values in public rows, or their frequencies alone"
    )
    seed: int = Field(0, ge=0, description="Of the order of rows, which decides the three parts")


@dataclass(frozen=True)
class Records:
    """A table that was read: coded rows (N, width), and labels, int64 (N,), of classes."""

    schema: Schema
    rows: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def coded(columns: Sequence[Column], values: Mapping[str, Sequence[Any]]) -> Tensor:
    """Return the values of each column, places of categories or numbers, as coded rows (N, width)."""
    return torch.cat([column.coded(values[column.name]) for column in columns], dim=1)


def divided(
    name: str, records: Records, settings: PartOptions, options: Mapping[str, Any], public: Records | None = None
) -> TableDataset:
    """Divide a table at random.

    options: as the data set shall say them; public: the adversary's own rows, where they come from elsewhere.

    Raises: DataError where rows are too few, or a class has no private row.
    """
    n = len(records.rows)
    sizes = _sizes(name, n, settings, public is not None)
    order = Random(derive_seed("table", settings.seed)).permutation(n)
    parts = [_part(records, rows) for rows in order[: sum(sizes)].split(sizes)]
    private, holdout, others = (*parts, _part(public, torch.arange(len(public.rows)))) if public else parts
    _check_classes(name, records, private)
    frequencies = _frequencies(others.table)
    if settings.known == "frequencies":
        others = TableSplit(Table(records.schema.blanked(others.table.rows), records.schema), others.labels)
    return TableDataset(
        name=name, classes=records.classes, private=private, holdout=holdout, public=others, frequencies=frequencies,
        options=options, notes=records.notes,
    )  # fmt: skip


def _sizes(name: str, n: int, settings: PartOptions, has_public: bool) -> list[int]:
    private = settings.private or round(0.4 * n)
    holdout = settings.holdout or round(0.3 * n)
    wanted = [private, holdout] if has_public else [private, holdout, settings.public or n - private - holdout]
    if sum(wanted) > n or min(wanted) < LEAST:
        asked = " and ".join(str(size) for size in wanted)
        raise DataError(
            f"{name}: {n} rows are too few for parts of {asked}",
            hint=f"each part needs {LEAST} at least: -D private=, -D holdout=, -D public=",
        )
    return wanted


def _part(records: Records, rows: Tensor) -> TableSplit:
    return TableSplit(Table(records.rows[rows], records.schema), records.labels[rows])


def _check_classes(name: str, records: Records, private: TableSplit) -> None:
    found = set(private.labels.tolist()) if private.labels is not None else set()
    missing = [label for place, label in enumerate(records.classes) if place not in found]
    if missing:
        raise DataError(
            f"{name}: no private row has the label {missing[0]!r}", hint="more private rows (-D private=), another seed"
        )


def _frequencies(table: Table) -> Tensor:
    """Return the shares of the sensitive values, each counted once more than it is there."""
    counts = table.values().bincount(minlength=len(table.schema.values)).double() + 1
    return counts / counts.sum()
