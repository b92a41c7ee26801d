"""A comparison of runs as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from micore.report.figures import number
from micore.report.markdown import escape, table
from micore.runs.compare import Comparison, Entry, Row, RunFacts, shown, shown_accuracy

RUN_COLUMNS = (
    "run", "attack", "access", "architecture", "defenses", "held-out accuracy", "queries", "gradients", "compared at",
)  # fmt: skip
FIGURE_COLUMNS = (
    "measurement", "evaluator", "run", "attack", "floors", "ceiling", "beats the floor", "difference", "differs",
)  # fmt: skip
ANSWERS = {True: "yes", False: "no", None: "cannot be said"}


def to_text(comparison: Comparison) -> str:
    """Return a comparison as Markdown."""
    return "\n\n".join(_text(comparison)) + "\n"


def _text(comparison: Comparison) -> Iterator[str]:
    runs = comparison.runs
    yield "# Comparison of runs"
    yield from (f"**{escape(text)}**" for text in comparison.statements)
    if comparison.warnings:
        yield "\n".join(f"- warning: {escape(text)}" for text in comparison.warnings)
    yield table(RUN_COLUMNS, [_run_cells(run) for run in runs])
    if comparison.rows:
        yield table(FIGURE_COLUMNS, [cells for row in comparison.rows for cells in _row_cells(row)])
        yield escape(
            f"Differences are to {runs[0].id}, paired by class; brackets are intervals over classes. They "
            "cover neither another training of the targets nor another seed. A figure differs where its interval "
            "excludes 0 and the p-value of a sign-flip test over classes, corrected for all differences of this table "
            "(Holm), is at most 0.05. Sentences above are about one figure, and corrected for the runs alone."
        )


def _run_cells(run: RunFacts) -> list[object]:
    defenses = ", ".join(run.defenses) or "none"
    plain = [run.id, run.attack, run.access, run.architecture, defenses]
    at = "nothing" if run.compared_queries is None else f"{run.compared_queries:,} queries"
    return [*plain, shown_accuracy(run), number(run.queries), number(run.gradients), at]


def _row_cells(row: Row) -> Iterator[list[object]]:
    for entry in row.entries:
        if entry is None:
            continue
        value = shown(entry.value, entry.interval)
        floors = ", ".join(f"{name} {number(floor)}" for name, floor in entry.floors.items()) or "none"
        yield [
            f"{row.name} ({row.direction})", row.evaluator, entry.run, value, floors, number(entry.ceiling),
            ANSWERS[entry.beats_floor], _difference_cell(entry), _differs_cell(entry),
        ]  # fmt: skip


def _difference_cell(entry: Entry) -> str:
    if entry.difference is None:
        return ""
    return f"{shown(entry.difference, entry.difference_interval)}, {entry.classes} classes"


def _differs_cell(entry: Entry) -> str:
    if entry.difference is None or entry.p_corrected is None:
        return ""
    return f"{ANSWERS[entry.differs(entry.p_corrected)]} (p = {entry.p_corrected:.2g})"
