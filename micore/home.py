"""Where micore keeps what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the user's directory for micore: ``MI_HOME``, or the platform's place for data."""
    return _chosen() or _base("XDG_DATA_HOME", ".local/share") / "micore"


def cache() -> Path:
    """Return the directory of what can be made again: ``MI_HOME/cache``, or the user's cache."""
    chosen = _chosen()
    return chosen / "cache" if chosen else _base("XDG_CACHE_HOME", ".cache") / "micore"


def _chosen() -> Path | None:
    text = os.environ.get("MI_HOME", "").strip()
    return Path(text).expanduser().absolute() if text else None


def _base(variable: str, default: str) -> Path:
    """Return an XDG base directory; the standard says to ignore relative ones."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else Path.home() / default
