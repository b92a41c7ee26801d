"""Random changes of rows for training: values of other rows, and numbers that are moved."""

from __future__ import annotations

import torch

from mi_tabular.table import Table
from micore.errors import UsageError
from micore.runtime import Random

STRENGTHS = {"none": 0.0, "light": 0.05, "medium": 0.1, "strong": 0.25}
"""How likely a value is another row's; numbers move by a fifth of that."""


def augment(table: Table, strength: str, rng: Random) -> Table:
    """Change rows at random; ``strength``: none, light, medium or strong.

    Raises: UsageError when there is no such strength.
    """
    if strength not in STRENGTHS:
        raise UsageError(f"augmentation {strength!r} is unknown", hint="one of " + ", ".join(STRENGTHS))
    share, n = STRENGTHS[strength], len(table)
    if not share:
        return table
    rows = table.rows.clone()
    for column in table.schema.columns:
        span = table.schema.spans[column.name]
        is_changed = (rng.uniform((n,)) < share).to(rows.device)
        others = rng.permutation(n).to(rows.device)
        rows[:, span] = torch.where(is_changed[:, None], table.rows[others, span], rows[:, span])
        if column.is_number:
            noise = (share / 5 * rng.normal((n, 1))).to(rows.device)
            rows[:, span] = (rows[:, span] + noise).clamp(0, 1)
    return Table(rows, table.schema)
