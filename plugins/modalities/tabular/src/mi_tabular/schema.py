"""What the columns of a table are, and how rows are coded: categories one-hot, numbers from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from micore.errors import ModelError


@dataclass(frozen=True)
class Column:
    """A column: of so many categories, or, where there are none, of numbers from low to high."""

    name: str
    categories: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return not self.categories

    @property
    def width(self) -> int:
        """How many places of a coded row are its."""
        return len(self.categories) or 1

    def coded(self, values: Sequence[Any]) -> Tensor:
        """Return values as float32 (N, width): places of categories (numbers of them), or numbers in their own unit.

        Numbers outside of the column's range are moved to its ends.
        """
        if not self.is_number:
            return functional.one_hot(torch.as_tensor(values, dtype=torch.int64), self.width).float()
        numbers = (torch.as_tensor(values, dtype=torch.float64) - self.low) / ((self.high - self.low) or 1.0)
        return numbers.clamp(0, 1).float()[:, None]

    def read(self, coded: Tensor) -> list[str | float | None]:
        """Return what coded values (N, width) say; None for a category that is not known."""
        if self.is_number:
            return [self.low + value * (self.high - self.low) for value in coded[:, 0].double().tolist()]
        places = coded.argmax(dim=1).tolist()
        return [
            self.categories[place] if known else None for place, known in zip(places, coded.any(dim=1), strict=True)
        ]


@dataclass(frozen=True)
class Schema:
    """The columns of a table without its label, in order; sensitive: the name of the one that is to be hidden.

    Raises: ValueError for a sensitive column that is not there, or has no categories.
    """

    columns: tuple[Column, ...]
    sensitive: str

    def __post_init__(self) -> None:
        if self.sensitive not in self.spans or self.hidden.is_number:
            raise ValueError(f"the sensitive column {self.sensitive!r} is none of those with categories")

    @cached_property
    def spans(self) -> dict[str, slice]:
        """The places of each column in a coded row."""
        found, start = {}, 0
        for column in self.columns:
            found[column.name] = slice(start, start + column.width)
            start += column.width
        return found

    @property
    def width(self) -> int:
        """How many places a coded row has."""
        return sum(column.width for column in self.columns)

    @property
    def hidden(self) -> Column:
        """The sensitive column."""
        return next(column for column in self.columns if column.name == self.sensitive)

    @property
    def values(self) -> tuple[str, ...]:
        """The values of the sensitive column."""
        return self.hidden.categories

    def blanked(self, rows: Tensor) -> Tensor:
        """Return coded rows (N, width) of which nobody knows the sensitive value: all its places are 0."""
        rows = rows.clone()
        rows[:, self.spans[self.sensitive]] = 0
        return rows

    def known(self, rows: Tensor) -> Tensor:
        """Return coded rows (N, width) without the places of the sensitive column, (N, width - values)."""
        span = self.spans[self.sensitive]
        return torch.cat([rows[:, : span.start], rows[:, span.stop :]], dim=1)

    def candidates(self, rows: Tensor) -> Tensor:
        """Return each of the coded rows (N, width) with each sensitive value, (N, values, width)."""
        found = rows[:, None].repeat(1, len(self.values), 1)
        found[:, :, self.spans[self.sensitive]] = torch.eye(len(self.values), device=rows.device, dtype=rows.dtype)
        return found

    def values_of(self, rows: Tensor) -> Tensor:
        """Return which sensitive value each of the coded rows has, int64 (N,); -1 where it is not known."""
        places = rows[:, self.spans[self.sensitive]]
        return torch.where(places.any(dim=1), places.argmax(dim=1), -1)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        columns = [{**asdict(column), "categories": list(column.categories)} for column in self.columns]
        return {"columns": columns, "sensitive": self.sensitive}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """Read the JSON form, such as the options of an input.

        Raises: ModelError when it is none.
        """
        try:
            columns = tuple(
                Column(**{**column, "categories": tuple(column["categories"])}) for column in data["columns"]
            )
            return cls(columns, data["sensitive"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the model's input says nothing of columns: {error}", hint="train it on a data set of tables"
            ) from error
