"""The one data-set class that all openers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_tabular.schema import Schema
from mi_tabular.table import Table
from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec


@dataclass(frozen=True, eq=False)
class TableSplit:
    """Part of a data set (`micore.contracts.Split`): a table, and the class of each row, int64 (N,), or None."""

    table: Table
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.table)

    def take(self, indices: Sequence[int] | Tensor) -> Table:
        """Return these rows."""
        return self.table[torch.as_tensor(indices, dtype=torch.int64)]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of rows and labels, 64 hex digits."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return digest(self.table.schema.to_dict(), self.table.rows.contiguous().numpy().tobytes(), labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class TableDataset:
    """Private, holdout and public rows of one setting (`micore.contracts.Dataset`).

    frequencies: how often each sensitive value is among public rows, (values,), shares of 1; the adversary knows them
    even where its rows do not hold the sensitive column. notes: what was changed in the table when it was read.

    Raises: DataError when a part is empty.
    """

    modality: ClassVar[str] = "tabular"

    name: str
    classes: tuple[str, ...]
    private: TableSplit
    holdout: TableSplit
    public: TableSplit
    frequencies: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, part in self._splits.items():
            if not len(part):
                raise DataError(f"{self.name}: no {name} rows")

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.private.table.schema

    @property
    def input(self) -> InputSpec:
        """What a model trained on it takes: coded rows."""
        return InputSpec(shape=(self.schema.width,), options=self.schema.to_dict())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        parts = {name: split.fingerprint for name, split in self._splits.items()}
        return digest(self.modality, list(self.classes), self.frequencies.tolist(), parts)

    @property
    def _splits(self) -> dict[str, TableSplit]:
        return {"private": self.private, "holdout": self.holdout, "public": self.public}

    def split(self, name: str) -> TableSplit:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError when there is none of this name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[TableSplit, tuple[str, ...]]:
        """Return what evaluator models learn: the private rows."""
        return self.private, self.classes
