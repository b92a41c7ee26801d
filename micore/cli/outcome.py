"""What a command prints of a run, and the exit code that it ends with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from micore.cli.app import App

if TYPE_CHECKING:
    from micore.report.findings import Finding
    from micore.runs import Run


COLUMNS = ("measurement", "evaluator", "attack", "95 % interval", "floor", "ceiling")


def finish(app: App, run: Run, *, as_json: bool) -> None:
    """Print a run's figures; then raise what kept it from being complete, if anything did."""
    from micore.files import read_json
    from micore.report.findings import findings
    from micore.runs import problem

    if as_json:
        app.json(read_json(run.directory / "report.json"))
    else:
        app.table(COLUMNS, summary(findings(run)))
        app.result(f"\nreport: {run.directory / 'report.html'}")
    trouble = problem(run)
    if trouble is not None:
        raise trouble


def summary(found: Iterable[Finding]) -> list[tuple[str, ...]]:
    """Return a row for each figure of the attack, with its hardest floor and its ceiling."""
    rows: list[tuple[str, ...]] = []
    for item in found:
        if item.attack is None:
            continue
        bounds = item.attack.interval
        interval = f"{bounds.low:.3f} to {bounds.high:.3f}" if bounds else "unknown"
        floor, ceiling = item.highest_floor, item.subjects.get(item.ceiling or "")
        beside = f"{floor.value:.3f} {floor.subject}" if floor else "-"
        top = f"{ceiling.value:.3f}" if ceiling else "-"
        rows.append((item.name, item.evaluator, f"{item.attack.value:.3f}", interval, beside, top))
    return rows
