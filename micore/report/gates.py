"""Gates: conditions on a run's figures under which a pipeline is to fail.

A gate that cannot be decided does not pass: a pipeline must not turn green because a figure is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from micore.errors import GateFailed, UsageError
from micore.report.figures import finite, plural
from micore.report.gate_grammar import (
    ARITHMETIC,
    COMPARISONS,
    ENDS,
    Expression,
    Gate,
    Number,
    Operation,
    Reference,
    parse_gate,
)

Document = Mapping[str, Any]

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"
FIRST = "@1"
"""What may be left out of a figure's name: `accuracy` is `accuracy@1`, where nothing is called `accuracy`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a gate ended, with the numbers that it was decided by, one line for each evaluator."""

    name: str
    status: str
    details: Sequence[str]

    def __str__(self) -> str:
        return f"{self.status}: {self.name} ({'; '.join(self.details)})"


class _UndecidedError(Exception):
    """A value that a gate needs is not known."""


def check_gates(report: Document, texts: Iterable[str]) -> list[Outcome]:
    """Decide every gate on a report document, and first of all whether the run can be judged at all.

    Where several evaluators measured a gate's figure, it fails as soon as its condition holds for one of them.

    Raises: UsageError for a gate that cannot be read, or that names what the run did not measure.
    """
    gates = [parse_gate(text) for text in texts]
    return [run_outcome(report), *(_outcome(report, gate) for gate in gates)]


def require_gates(outcomes: Sequence[Outcome]) -> None:
    """Raise GateFailed unless every outcome has passed."""
    bad = [outcome for outcome in outcomes if outcome.status != PASSED]
    if bad:
        raise GateFailed(
            f"{len(bad)} of {plural(len(outcomes), 'gate')} not passed: " + "; ".join(outcome.name for outcome in bad),
            hint="the lines of the gates have the numbers",
        )


def run_outcome(report: Document) -> Outcome:
    """Tell whether the run came to its end, a spent budget included, and no case failed: else nothing can pass."""
    status, counts = report["run"]["status"], report["cases"]["counts"]
    details = [report["run"]["status_text"]]
    if failed := counts.get("failed", 0):
        details.append(f"{plural(failed, 'case')} failed")
    ended = status in ("finished", "budget") and not failed
    return Outcome("the attack came to its end", PASSED if ended else UNDECIDED, details)


def _outcome(report: Document, gate: Gate) -> Outcome:
    rows = report["results"]["rows"]
    if not rows:
        return Outcome(gate.text, UNDECIDED, ["the run has no figures"])
    subject = gate.figure.subject or "attack"
    found = [_decide(gate, row, report) for row in _measured(rows, gate.figure) if subject in row["cells"]]
    if not found:
        return Outcome(gate.text, UNDECIDED, [f"{gate.figure.name} was not measured of {subject}"])
    worst = next(status for status in (FAILED, UNDECIDED, PASSED) if any(status == each for each, _ in found))
    return Outcome(gate.text, worst, [detail for _, detail in found])


def _decide(gate: Gate, row: Document, report: Document) -> tuple[str, str]:
    rows = report["results"]["rows"]
    name = f"{row['name']} by {row['evaluator']}"
    try:
        value, limit = _figure(gate.figure, row), _value(gate.limit, row, rows)
    except _UndecidedError as error:
        return UNDECIDED, f"{name}: {error}"
    holds = COMPARISONS[gate.comparison](value, limit)
    return (
        FAILED if holds else PASSED,
        f"{name}: {value:.6g} {'is' if holds else 'is not'} {gate.comparison} {limit:.6g}",
    )


# values -------------------------------------------------------------------------------------------


def _value(item: Expression, row: Document, rows: Sequence[Document]) -> float:
    if isinstance(item, Number):
        return item.value
    if isinstance(item, Reference):
        return _bound(item, row) if item.bound else _figure(item, _other(item, row, rows))
    left, right = _value(item.left, row, rows), _value(item.right, row, rows)
    return _combined(item, left, right)


def _combined(item: Operation, left: float, right: float) -> float:
    try:
        found = finite(ARITHMETIC[item.sign](left, right))
    except (ZeroDivisionError, OverflowError):
        found = None
    if found is None:
        raise _UndecidedError(f"{left:.6g} {item.sign} {right:.6g} is no number")
    return found


def _bound(item: Reference, row: Document) -> float:
    kind, _, end = item.name.partition(".")
    subject = row["highest_floor"] if kind == "floor" else row["ceiling"]
    if subject is None:
        raise _UndecidedError(f"no {kind} was measured")
    return _cell(row["cells"][subject], end, item.name)


def _figure(item: Reference, row: Document) -> float:
    subject = item.subject or "attack"
    if subject not in row["cells"]:
        raise _UndecidedError(f"{row['name']} was not measured of {subject}")
    return _cell(row["cells"][subject], _split(item.name, row)[1], item.name)


def _split(name: str, row: Document) -> tuple[str, str]:
    """Part a figure's name from the end of the interval that is asked for."""
    end = next((end for end in ENDS if name.endswith(end) and not _is(name, row)), "")
    return name.removesuffix(end), end.removeprefix(".")


def _cell(cell: Document, end: str, name: str) -> float:
    found = cell["value"] if not end else (cell["interval"] or {}).get(end)
    if found is None:
        raise _UndecidedError(f"{name} is unknown")
    return float(found)


# names --------------------------------------------------------------------------------------------


def _is(name: str, row: Document) -> bool:
    return name in (row["name"], row["name"].removesuffix(FIRST))


def _measured(rows: Sequence[Document], item: Reference) -> list[Document]:
    """Return the rows that a figure means: those of every evaluator that measured it, unless one is named."""
    found = [row for row in rows if _is(_split(item.name, row)[0], row)]
    found = [row for row in found if _split(item.name, row)[0] == row["name"]] or found
    if not found:
        raise UsageError(
            f"the run has no figure {item.name!r}",
            hint="it has " + _listed(row["name"] for row in rows) + "; put spaces around a minus",
        )
    if item.evaluator is not None:
        found = _of_evaluator(found, item)
    if item.subject is not None:
        _require_subject(rows, item.subject)
    return found


def _of_evaluator(rows: Sequence[Document], item: Reference) -> list[Document]:
    """Keep the rows of an evaluator, by its name or by that with its model's mark (``accuracy@1f2e``)."""
    names = (item.evaluator,)
    found = [row for row in rows if row["evaluator"] in names or row["evaluator"].partition("@")[0] in names]
    if not found:
        raise UsageError(
            f"{item.evaluator!r} did not measure {item.name!r}",
            hint="this did: " + _listed(row["evaluator"] for row in rows),
        )
    return found


def _require_subject(rows: Sequence[Document], subject: str) -> None:
    known = [name for row in rows for name in row["cells"]]
    if subject not in known:
        raise UsageError(f"the run has no figures of {subject!r}", hint="it has those of " + _listed(known))


def _other(item: Reference, row: Document, rows: Sequence[Document]) -> Document:
    """Return the row of another figure: that of the same evaluator, or else the only one."""
    found = _measured(rows, item)
    same = [other for other in found if other["evaluator"] == row["evaluator"]]
    if len(same or found) > 1:
        raise UsageError(
            f"several evaluators measured {item.name!r}",
            hint="say which: " + _listed(f"{item.name} by {other['evaluator']}" for other in found),
        )
    return (same or found)[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
