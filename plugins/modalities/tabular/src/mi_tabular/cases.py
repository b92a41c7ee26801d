"""What runs on tables attack: the sensitive value of private rows, and of rows that the target never saw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mi_tabular.datasets.dataset import TableDataset
from mi_tabular.evidence import KIND, KnownRow, known_of
from mi_tabular.table import Table
from micore.contracts import Case, Dataset, Reconstruction, Truth
from micore.errors import UsageError
from micore.kit.choice import read_rows

SPREAD = 300
"""How many private rows a run attacks when the user chooses none, and how many held-out ones: the first of each, as
their order is random."""

PRIVATE, HOLDOUT = "private", "holdout"
SMALLEST = 1e-9
"""A probability that is called 0 is counted as so much: scores stay finite."""


def attribute_cases(dataset: Dataset | None, choice: str | None, evidence: str | None) -> list[Case]:
    """Return a case for each chosen row; None chosen: `SPREAD` private ones and as many that were held out.

    Numbers of rows count the private ones, then those that were held out. Raises: UsageError without a data set of
    tables, for an unknown kind of evidence or a choice that does not fit.
    """
    data = table_data(dataset)
    if evidence not in (None, KIND):
        raise UsageError(f"--evidence {evidence}: goal 'attribute' has none such", hint=KIND)
    n, m = len(data.private), len(data.holdout)
    usual = [*range(min(SPREAD, n)), *range(n, n + min(SPREAD, m))]
    rows = usual if choice is None else read_rows(choice, n + m)
    return [_case(data, PRIVATE, row) if row < n else _case(data, HOLDOUT, row - n) for row in rows]


def _case(data: TableDataset, part: str, row: int) -> Case:
    split = data.split(part)
    if split.labels is None:
        raise UsageError(f"{data.name}: {part} rows have no labels, which the adversary would know")
    known = KnownRow(
        row=data.schema.blanked(split.take([row]).rows)[0], schema=data.schema, frequencies=data.frequencies,
        label=int(split.labels[row]),
    )  # fmt: skip
    return Case(id=f"{part}-{row}", goal="attribute", evidence=known)


def table_data(dataset: Dataset | None) -> TableDataset:
    """Return a data set as one of tables.

    Raises: UsageError when it is none.
    """
    if not isinstance(dataset, TableDataset):
        raise UsageError("goal 'attribute' attacks rows of a table", hint="give --data")
    return dataset


def is_private(case_id: str) -> bool:
    """Tell whether a case is about a row that the target learned from."""
    return case_id.startswith(f"{PRIVATE}-")


def truths(cases: Sequence[Case], dataset: Dataset) -> dict[str, Truth]:
    """Return the whole row behind each case, by case id."""
    data, found = table_data(dataset), {}
    for case in cases:
        if case.goal == "attribute":
            part, _, row = case.id.rpartition("-")
            found[case.id] = Truth(sample=data.split(part).take([int(row)]))
    return found


def ranked(case: Case, scores: Tensor) -> Reconstruction:
    """Give back a row with its likeliest sensitive value; scores (values,): of each value, finite."""
    scores = scores.detach().double().cpu()
    best = scores.argsort(descending=True, stable=True)[:1]  # of equals the first one
    known = known_of(case)
    return Reconstruction(case=case, samples=Table(known.candidates()[best], known.schema), scores=scores[best].float())


def log_shares(shares: Tensor) -> Tensor:
    """Return logarithms of probabilities, float64, finite."""
    return torch.as_tensor(shares).double().clamp(min=SMALLEST).log()
