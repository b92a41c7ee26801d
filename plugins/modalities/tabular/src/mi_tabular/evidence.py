"""What the adversary holds of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_tabular.schema import Schema
from mi_tabular.table import Table
from micore.contracts import Case
from micore.errors import UsageError

KIND = "columns+label"
"""What the evidence is called: all columns but the sensitive one, and the true label."""


@dataclass(frozen=True, kw_only=True)
class KnownRow:
    """All columns of a row but the sensitive one.

    row: coded, float32 (width,), 0 in the places of the sensitive column. frequencies: of its values, (values,), as
    they are published. label: the row's true class.
    """

    row: Tensor
    schema: Schema
    frequencies: Tensor
    label: int

    @property
    def kind(self) -> str:
        """What it is called."""
        return KIND

    def candidates(self) -> Tensor:
        """Return the row with each sensitive value, (values, width)."""
        return self.schema.candidates(self.row[None])[0]

    def table(self) -> Table:
        """Return the row as a sample; nobody knows its sensitive value."""
        return Table(self.row[None], self.schema)

    def log_frequencies(self) -> Tensor:
        """Return the logarithms of the frequencies, float64 (values,)."""
        return self.frequencies.double().clamp(min=1e-12).log()


def known_of(case: Case) -> KnownRow:
    """Return what is known of a case's row.

    Raises: UsageError for a case of another goal.
    """
    if not isinstance(case.evidence, KnownRow):
        raise UsageError(f"case {case.id} holds no evidence of a row")
    return case.evidence


def stacked(cases: Sequence[Case]) -> Tensor:
    """Return the known rows of cases, (N, width)."""
    return torch.stack([known_of(case).row for case in cases])
