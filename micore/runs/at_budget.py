"""Runs at the same number of queries: each as it stood when it had spent no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from micore.errors import UsageError
from micore.report.curves import spent, stands, total
from micore.report.findings import Finding
from micore.runs.store import Run
from micore.runs.subjects import ATTACK

EQUAL = "equal"
"""Asks for the highest number of queries that every run reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where a run stood; ``index`` is None for its end."""

    queries: int
    index: int | None = None


def read_budget(text: str) -> int | str:
    """Read what a user writes: a number of queries, or ``equal``.

    Raises: UsageError.
    """
    if text == EQUAL:
        return EQUAL
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"{text!r} is no budget", hint=f"a number of queries, or {EQUAL}")
    return int(text)


def budget_of(runs: Sequence[Run], asked: int | str) -> int:
    """Return the number of queries to compare runs at.

    Raises: UsageError for a run that is to be compared at all it spent, and spent nothing.
    """
    if isinstance(asked, int):
        return asked
    least = min(map(total, runs))
    if least == 0:
        raise UsageError("a run sent no queries: there is no equal budget", hint="give a number of queries")
    return least


def stand_within(run: Run, budget: int) -> Stand | None:
    """Return the last stand of a run that cost no more than the budget, preparation included; None: there is none."""
    if total(run) <= budget:
        return Stand(queries=total(run))
    within = [Stand(queries=queries, index=index) for index, queries in enumerate(spent(run)) if queries <= budget]
    return within[-1] if within else None


def findings_at(run: Run, found: Sequence[Finding], stand: Stand | None) -> list[Finding]:
    """Return the findings that were judged at a stand, with the attack's figure of it; floors are those of the end."""
    if stand is None:
        return []
    if stand.index is None:
        return list(found)
    judged = stands(run.measurements())
    here = [(item, judged.get((item.evaluator, item.name), {}).get(stand.index)) for item in found]
    return [replace(item, subjects={**item.subjects, ATTACK: figure}) for item, figure in here if figure is not None]
