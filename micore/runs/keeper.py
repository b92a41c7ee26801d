"""Keeping what a run recovers, case by case, with its share of time and cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from micore.contracts import Case, Reconstruction
from micore.runs.session import Session
from micore.runs.store import Row, Run
from micore.runs.tiles import Tile
from micore.threat import Spending


class Keeper:
    """Writes the cases of one sitting with their share of time and cost.

    ``rows`` is what earlier sittings wrote: what they spent on a case stays in its row.
    """

    def __init__(self, session: Session, run: Run, rows: Mapping[str, Row], tile: Tile) -> None:
        self.size = 1
        self._session = session
        self._run = run
        self._earlier = rows
        self._tile = tile
        self._written: set[str] = set()
        self._started = time.monotonic()
        self._shared = replace(session.target.ledger.shared)
        self._shared_access = dict(session.target.ledger.shared_access)

    def begin(self, size: int) -> None:
        """Start the clock of a batch."""
        self.size = size
        self._started = time.monotonic()

    def keep(self, reconstruction: Reconstruction) -> None:
        """Write a reconstruction."""
        case = reconstruction.case
        row = self._row(case, "done" if reconstruction.complete else "partial")
        self._write(row, self._with_earlier_spending(reconstruction))
        self._session.registry.observe("mi_case_done", run=self._run, case=case, reconstruction=reconstruction)

    def fail(self, case: Case, error: str) -> None:
        """Write a failed case with its reason."""
        self._write(self._row(case, "failed", error), None)

    def stop(self, batch: Sequence[Case], status: str) -> None:
        """Write what was spent on cases that gave nothing back before the run stopped."""
        for case in batch:
            earlier = self._earlier.get(case.id, {})
            if case.id in self._written:
                continue
            if earlier.get("status") == "partial":
                costs = ("spending", "shared_spending", "used_access", "by_access")
                row = self._row(case, "partial")
                self._run.amend_case({**earlier, **{name: row[name] for name in costs}})
            else:
                self._write(self._row(case, status), None)

    def _write(self, row: Row, reconstruction: Reconstruction | None) -> None:
        self._run.write_case(row, reconstruction, self._session.modality)
        self._written.add(row["id"])
        self._run.note_case(row)

    def _with_earlier_spending(self, reconstruction: Reconstruction) -> Reconstruction:
        """Count at each earlier stand also what sittings before this one spent on the case, as its row does."""
        if reconstruction.case.id not in self._earlier:
            return reconstruction
        spent = self._earlier[reconstruction.case.id]["spending"]["queries"]
        later = [replace(stand, queries=stand.queries + spent) for stand in reconstruction.snapshots]
        return replace(reconstruction, snapshots=tuple(later))

    def _row(self, case: Case, status: str, error: str | None = None) -> Row:
        ledger = self._session.target.ledger
        return {
            "id": case.id, "goal": case.goal, "label": case.label, "status": status, "error": error,
            "seconds": round((time.monotonic() - self._started) / self.size, 3),
            "spending": ledger.cases.get(case.id, Spending()).to_dict(),
            "shared_spending": self._take_shared(case.id),
            "used_access": ledger.to_dict()["used_access"],
            "by_access": self._by_access(case.id),
            "tile": self._tile.rows,
        }  # fmt: skip

    def _take_shared(self, case_id: str) -> dict[str, int]:
        """Return what was spent for no case in particular since the last row: it goes with this one."""
        shared, before = self._session.target.ledger.shared, self._shared
        self._shared = replace(shared)
        spent = Spending(shared.queries - before.queries, shared.gradients - before.gradients)
        if case_id in self._earlier:
            spent.add(Spending.from_dict(self._earlier[case_id]["shared_spending"]))
        return spent.to_dict()

    def _by_access(self, case_id: str) -> dict[str, int]:
        """Return a case's queries by the access that they needed, with the shared ones that go with this row."""
        ledger, before = self._session.target.ledger, self._shared_access
        self._shared_access = dict(ledger.shared_access)
        found = Counter(ledger.case_access.get(case_id, {}))
        found.update({name: count - before.get(name, 0) for name, count in ledger.shared_access.items()})
        return {name: count for name, count in found.items() if count}
