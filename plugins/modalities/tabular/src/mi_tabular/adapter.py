"""Fitting rows to what a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mi_tabular.schema import Schema
from mi_tabular.table import Table
from micore.errors import ModelError
from micore.inputs import InputSpec


@dataclass(frozen=True)
class TableAdapter:
    """From tables to the input of a model: coded rows, float32 (N, width).

    Raises: ModelError when the spec is not that of a model of tables.
    """

    spec: InputSpec

    def __post_init__(self) -> None:
        if self.spec.shape != (self.schema.width,):
            raise ModelError(f"the model takes {self.spec.shape}, its columns have {self.schema.width} places")

    @cached_property
    def schema(self) -> Schema:
        """The columns that the model knows."""
        return Schema.from_dict(self.spec.options)

    def __call__(self, table: Table) -> Tensor:
        """Return the coded rows.

        Raises: ModelError for rows of other columns than the model's.
        """
        if table.schema.columns != self.schema.columns:
            raise ModelError("the rows have other columns than the model", hint="give the data set it was trained on")
        return table.rows
