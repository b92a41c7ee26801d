"""Does the adversary's table hold the private rows?"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from micore.contracts import Dataset


def measure_overlap(dataset: Dataset) -> dict[str, Any]:
    """Count the public and held-out rows that equal a private one.

    Returns, for ``public`` and ``holdout``: ``n``, ``equal`` (all columns) and ``equal_known`` (all but the sensitive).
    Rows of few columns are often equal by chance: the held-out ones tell how often.
    """
    private = dataset.split("private").take(range(len(dataset.split("private"))))
    schema = private.schema
    own = _looks(private.rows), _looks(schema.known(private.rows))
    found: dict[str, Any] = {"private": {"n": len(private)}}
    for name in ("public", "holdout"):
        rows = dataset.split(name).take(range(len(dataset.split(name)))).rows
        looks = _looks(rows), _looks(schema.known(rows))
        equal, known = (sum(look in seen for look in part) for part, seen in zip(looks, map(set, own), strict=True))
        found[name] = {"n": len(rows), "equal": equal, "equal_known": known}
    return found


def _looks(rows: Tensor) -> list[bytes]:
    return [row.tobytes() for row in rows.contiguous().numpy()]
