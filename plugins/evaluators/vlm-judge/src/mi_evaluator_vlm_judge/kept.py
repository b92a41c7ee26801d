"""Answers that are kept, so that what was paid for is not asked again."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from mi_evaluator_vlm_judge.verdicts import Verdict


class KeptVerdicts:
    """Verdicts by the hash of the whole request, in one file: no picture, no text and no key is in it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, threading.Lock()
        with self._open() as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS verdicts (request TEXT PRIMARY KEY, verdict TEXT)")

    def find(self, request: str) -> Verdict | None:
        """Return the verdict on a request, if there is one."""
        with self._lock, self._open() as connection:
            row = connection.execute("SELECT verdict FROM verdicts WHERE request = ?", (request,)).fetchone()
        return Verdict(row[0]) if row else None

    def keep(self, request: str, verdict: Verdict) -> None:
        """Add a verdict at once: the next request may be the one that ends the run."""
        with self._lock, self._open() as connection, connection:
            connection.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (request, verdict.value))

    def _open(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._path, timeout=30))
