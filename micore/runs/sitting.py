"""Attacking batches of cases, where single cases may fail and memory may not suffice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from micore.contracts import Case, Prepared
from micore.errors import CaseFailed, MiError
from micore.runs.keeper import Keeper
from micore.runs.session import Session
from micore.runs.store import Row, Run
from micore.runs.tiles import Tile


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """One process at work on the cases of a run."""

    session: Session
    prepared: Prepared | None
    keeper: Keeper
    tile: Tile

    def attack(self, batch: Sequence[Case]) -> None:
        """Attack a batch; if it breaks, attack its unfinished cases one by one, to tell which is at fault.

        A batch that does not fit in memory goes on with half the rows in a forward pass.
        """
        waiting = {case.id: case for case in batch}
        self.keeper.begin(len(batch))
        try:
            self.tile.fit(lambda rows: self._search(waiting, rows))
        except CaseFailed as error:
            for case_id in [name for name in waiting if name in error.reasons]:
                self.keeper.fail(waiting.pop(case_id), error.reasons[case_id])
            self._isolate(list(waiting.values()), error)
        except MiError:
            raise
        except Exception as error:  # the fourth seam: an attack's own fault is a row, not the end of the run
            self._isolate(list(waiting.values()), error)
        else:
            for case in waiting.values():
                self.keeper.fail(case, "the attack gave nothing back for this case")

    def _search(self, waiting: dict[str, Case], rows: int) -> None:
        """Attack what is waiting; what is given back waits no more."""
        session = self.session
        runtime = replace(session.runtime, tile=rows)
        cases = list(waiting.values())
        for reconstruction in session.attack.run(session.target, cases, self.prepared, runtime):
            case_id = reconstruction.case.id
            if waiting.pop(case_id, None) is None:
                raise ValueError(f"the attack gave back {case_id!r} twice, or without being asked")
            self.keeper.keep(reconstruction)

    def _isolate(self, cases: Sequence[Case], error: Exception) -> None:
        if self.keeper.size == 1:
            for case in cases:
                self.keeper.fail(case, f"{type(error).__name__}: {error}")
            return
        for case in cases:
            self.attack([case])


def start_tile(session: Session, run: Run, rows: Mapping[str, Row]) -> Tile:
    """Return the tile to begin with: the session's, or what earlier sittings found to fit on this device."""
    found = [session.runtime.tile]
    if run.manifest["hardware"]["device"] == str(session.runtime.device):
        found += tiles(rows)
    return Tile(min(found), lambda before, now: run.event("tile", rows=now, before=before, reason="out of memory"))


def tiles(rows: Mapping[str, Row]) -> set[int]:
    """Return how many rows a forward pass had, over all cases."""
    return {row["tile"] for row in rows.values() if "tile" in row}
