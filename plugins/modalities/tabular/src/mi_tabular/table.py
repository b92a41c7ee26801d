"""Samples: coded rows, with the schema that tells what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_tabular.schema import Schema

_ROWS, _SCHEMA = "rows", "schema"


@dataclass(frozen=True, eq=False)
class Table:
    """N rows of one schema: float32 (N, width), in [0, 1].

    Raises: ValueError for rows of another shape.
    """

    rows: Tensor
    schema: Schema

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != self.schema.width:
            raise ValueError(f"rows have shape {tuple(self.rows.shape)}, not (N, {self.schema.width})")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | int | Sequence[int] | Tensor) -> Table:
        """Return some of the rows; of one number a table of one.

        Raises: IndexError for a number that no row has.
        """
        if isinstance(rows, int):
            rows = [range(len(self))[rows]]
        return Table(self.rows[rows], self.schema)

    def __iter__(self) -> Iterator[Table]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self.schema == other.schema and torch.equal(self.rows, other.rows)

    def values(self) -> Tensor:
        """Return the sensitive value of each row, int64 (N,); -1: not known."""
        return self.schema.values_of(self.rows)

    def records(self) -> list[dict[str, str | float | None]]:
        """Return what each row says, by column."""
        spans = self.schema.spans
        columns = {column.name: column.read(self.rows[:, spans[column.name]]) for column in self.schema.columns}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def pack(table: Table) -> dict[str, Tensor]:
    """Return a table as tensors to store; its schema as JSON in bytes."""
    text = bytearray(json.dumps(table.schema.to_dict(), sort_keys=True).encode())
    return {_ROWS: table.rows.detach().cpu().contiguous(), _SCHEMA: torch.frombuffer(text, dtype=torch.uint8)}


def unpack(tensors: Mapping[str, Tensor]) -> Table:
    """Return a stored table."""
    text = tensors[_SCHEMA].numpy().tobytes().decode()
    return Table(tensors[_ROWS], Schema.from_dict(json.loads(text)))


def joined(parts: Sequence[Table]) -> Table:
    """Return several tables of one schema, at least one, as one."""
    return Table(torch.cat([part.rows for part in parts]), parts[0].schema)
