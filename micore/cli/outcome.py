"""What a command prints of a run, and the exit code that it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micore.cli.app import App

if TYPE_CHECKING:
    from micore.contracts import Measurement
    from micore.runs import Run


COLUMNS = ("measurement", "evaluator", "attack", "95 % interval", "floor", "ceiling")


def finish(app: App, run: Run, *, as_json: bool) -> None:
    """Print a run's figures; then raise what kept it from being complete, if anything did."""
    from micore.files import read_json
    from micore.runs import problem

    if as_json:
        app.json(read_json(run.directory / "report.json"))
    else:
        app.table(COLUMNS, summary(run.measurements()))
        app.result(f"\nreport: {run.directory / 'report.html'}")
    trouble = problem(run)
    if trouble is not None:
        raise trouble


def summary(measurements: list[Measurement]) -> list[tuple[str, ...]]:
    """Return a row for each measurement of the attack, with its controls."""
    from micore.runs.subjects import ATTACK, CEILING, PRIOR_SAMPLES

    found = {(item.name, item.evaluator, item.subject): item for item in measurements}
    rows: list[tuple[str, ...]] = []
    for (name, evaluator, subject), item in found.items():
        if subject != ATTACK:
            continue
        interval = f"{item.interval.low:.3f} to {item.interval.high:.3f}" if item.interval else "unknown"
        floor = found.get((name, evaluator, PRIOR_SAMPLES))
        ceiling = found.get((name, evaluator, CEILING))
        rows.append((name, evaluator, f"{item.value:.3f}", interval, _value(floor), _value(ceiling)))
    return rows


def _value(measurement: Measurement | None) -> str:
    return f"{measurement.value:.3f}" if measurement else "-"
