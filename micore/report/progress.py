"""The attack's own progress, such as its loss: what it saw of itself while it worked, which no judge did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, quantiles
from typing import Any

Document = dict[str, Any]

PROGRESS = (
    "What the attack recorded while it worked, such as its loss: means over cases, with quartiles in brackets. Nobody "
    "judged it, so it has neither floor nor ceiling, and a low loss is no recovery."
)

MOST_POINTS = 25
SHORTEST = 2


def progress(rows: Iterable[Mapping[str, Any]]) -> list[Document]:
    """Return each series that the attack recorded, as means over cases with their quartiles (``low``, ``high``).

    A point has the number of its look, from 1, and how many cases had one: an attack looks at itself as often as it
    likes, and a case that ended early has fewer looks. Of many looks `MOST_POINTS` are kept, the first and the last
    among them.
    """
    series: dict[str, list[Sequence[float]]] = {}
    for row in rows:
        for name, values in (row.get("history") or {}).items():
            if len(values) >= SHORTEST:
                series.setdefault(name, []).append(values)
    return [{"name": name, "points": _points(values)} for name, values in series.items()]


def _points(values: Sequence[Sequence[float]]) -> list[Document]:
    longest = max(map(len, values))
    found = []
    for look in _chosen(longest):
        known = [item[look] for item in values if look < len(item) and math.isfinite(item[look])]
        if known:
            low, _, high = quantiles(known, n=4, method="inclusive") if len(known) > 1 else (None, None, None)
            found.append({"look": look + 1, "value": fmean(known), "low": low, "high": high, "cases": len(known)})
    return found


def _chosen(longest: int) -> list[int]:
    if longest <= MOST_POINTS:
        return list(range(longest))
    return [round(index * (longest - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS)]
