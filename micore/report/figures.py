"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "n/a"


def finite(value: float | None) -> float | None:
    """Return the value, or None for what JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def number(value: float | None) -> str:
    """Write a figure with about three digits; ``n/a`` for none."""
    if value is None or not math.isfinite(value):
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size != 0 and (size < 5e-4 or size >= 1e6):
        return f"{value:.2e}"
    return f"{value:,.{3 if size < 10 else 2 if size < 100 else 1}f}"


def interval(bounds: Mapping[str, Any] | None) -> str:
    """Write an interval as ``[low, high]``; ``[no interval]`` for none."""
    return f"[{number(bounds['low'])}, {number(bounds['high'])}]" if bounds else "[no interval]"


def figure(cell: Mapping[str, Any] | None) -> str:
    """Write a value with its interval."""
    if cell is None:
        return "not measured"
    return f"{number(cell['value'])} {interval(cell['interval'])}"


def share(value: float | None) -> str:
    """Write a share as a percentage."""
    return MISSING if value is None else f"{value:.0%}"


def duration(seconds: float | None) -> str:
    """Write seconds as a person says them."""
    if seconds is None:
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size(n_bytes: int | None) -> str:
    """Write an amount of memory."""
    if n_bytes is None:
        return MISSING
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def plural(count: int, word: str, many: str | None = None) -> str:
    """Write a count with its word."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"
