"""Trying a run for a few seconds: how long its phases would take, and how much memory they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from micore.contracts import Prepared
from micore.home import cache
from micore.runs.memory import peak_memory
from micore.runs.preparation import prepare
from micore.runs.session import Session
from micore.runtime import Checkpoints, Progress, Runtime
from micore.threat import Budget


@dataclass
class Phase:
    """A piece of work that tells of its progress: steps in all, steps that were tried, seconds that these took."""

    name: str
    steps: int
    tried: int = 0
    elapsed: float = 0.0
    first: tuple[int, float] | None = None
    over: bool = False

    @property
    def seconds(self) -> float | None:
        """The whole phase's seconds, at the pace after its first report; None when too little was seen."""
        if self.over:
            return self.elapsed
        if self.first is None or self.tried <= self.first[0]:
            return None
        done, at = self.first
        return at + (self.elapsed - at) / (self.tried - done) * (self.steps - done)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        seconds = None if self.seconds is None else round(self.seconds, 1)
        return {"name": self.name, "steps": self.steps, "tried": self.tried, "seconds": seconds}


class _Enough(Exception):  # noqa: N818 - no error: the probe has seen what it needs
    """Ends a probe from inside the work."""


class _Watch(Progress):
    """Notes the pace of each phase, and ends the work when one has been watched long enough."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.phases: list[Phase] = []

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Watch one phase."""
        phase, started = Phase(description, total), time.monotonic()
        self.phases.append(phase)

        def report(done: int) -> None:
            phase.tried, phase.elapsed = done, time.monotonic() - started
            phase.first = phase.first or (done, phase.elapsed)
            if phase.elapsed > self._limit_s and done < total:
                raise _Enough

        yield report
        phase.elapsed, phase.over = time.monotonic() - started, True


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a probe saw.

    phases: those that it reached, in their order; complete: whether all of them were reached, so that their seconds
    add up to the whole; memory: the most that was held, in bytes, which is the least that the run needs.
    """

    phases: tuple[Phase, ...]
    complete: bool
    memory: dict[str, int | None]

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole run, without its judges; None when that is not known."""
        known = [phase.seconds for phase in self.phases]
        return None if not self.complete or None in known else sum(value for value in known if value is not None)


def probe(session: Session, limit_s: float) -> Probe:
    """Prepare and search, each phase for at most so many seconds; nothing is charged or kept.

    What is prepared already is taken from the cache, and finished work that knows no target stays on the shelf, as a
    run would leave it. After a phase of the preparation that takes longer, the later ones are not reached.
    """
    watch = _Watch(limit_s)
    ledger, runtime = session.target.ledger, _uncharged(session.runtime, watch)
    budget, ledger.budget = ledger.budget, Budget()
    try:
        complete = _search(session, watch, runtime)
    finally:
        ledger.budget = budget
    return Probe(phases=tuple(watch.phases), complete=complete, memory=peak_memory(session.runtime.device))


def _uncharged(runtime: Runtime, watch: _Watch) -> Runtime:
    return replace(runtime, progress=watch, checkpoints=Checkpoints())


def _search(session: Session, watch: _Watch, runtime: Runtime) -> bool:
    """Go through the phases; return whether the search was reached."""
    try:
        prepared = _prepared(session, runtime)
    except _Enough:
        return False
    try:
        for _ in session.attack.run(session.target, session.cases, prepared, runtime):
            pass
    except _Enough:
        pass
    return True


def _prepared(session: Session, runtime: Runtime) -> Prepared | None:
    """Return the preparation, from the cache where it is there; a new one is not kept."""
    key = session.preparation_key
    if (cache() / "prepared" / key / "prepared.safetensors").exists():
        return prepare(session.attack, session.target, session.public, runtime, key).prepared
    return session.attack.prepare(session.target, session.public, runtime)
