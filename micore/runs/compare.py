"""Several runs side by side: what each leaks, how they differ class by class, and whether that is fair."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

from micore.contracts import Interval, Measurement
from micore.errors import UsageError
from micore.files import digest
from micore.kit.statistics import paired_difference
from micore.report.facts import accuracy
from micore.report.figures import figure, finite, number
from micore.report.findings import Finding, findings, main_finding
from micore.report.markdown import escape, table
from micore.runs.judges import judge_name
from micore.runs.store import Run

COMPARISON_SCHEMA = "micore.comparison/1"

Key = tuple[str, str]
"""The evaluator and the name of a measurement."""

RUN_COLUMNS = (
    "run", "attack", "access", "architecture", "defenses", "held-out accuracy", "queries", "gradients",
)  # fmt: skip
FIGURE_COLUMNS = (
    "measurement", "evaluator", "run", "attack", "floors", "ceiling", "beats the floor", "difference",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a comparison says of a run besides its figures."""

    id: str
    status: str
    attack: str
    preset: str
    config: Mapping[str, Any]
    access: str
    cases: tuple[str, ...]
    seed: int
    target: str
    architecture: str
    defenses: tuple[str, ...]
    holdout_accuracy: float | None
    holdout_interval: Interval | None
    data: str | None
    queries: int | None
    gradients: int | None
    judges: Mapping[str, str]
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run's figure, and its difference to the first run over the ``classes`` that both attacked."""

    run: str
    value: float | None
    interval: Interval | None
    floors: Mapping[str, float | None]
    ceiling: float | None
    beats_floor: bool | None
    difference: float | None = None
    difference_interval: Interval | None = None
    classes: int = 0
    method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement name of one evaluator; ``entries`` follow the runs, None where it is missing."""

    name: str
    evaluator: str
    unit: str
    direction: str
    entries: Sequence[Entry | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side; differences are to the first one.

    warnings: what makes the runs less than comparable; statements: utility against leakage.
    """

    runs: Sequence[RunFacts]
    rows: Sequence[Row]
    warnings: Sequence[str] = field(default_factory=tuple)
    statements: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"schema": COMPARISON_SCHEMA, **asdict(self)}

    def text(self) -> str:
        """Return the comparison as Markdown."""
        return "\n\n".join(_text(self)) + "\n"


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare every measurement that at least two of the runs have; differences are to the first run.

    Raises: UsageError for fewer than two runs, or the same one twice.
    """
    names = [run.directory.resolve() for run in runs]
    if len(runs) < 2 or len(set(names)) != len(names):
        raise UsageError("a comparison needs two or more different runs")
    seats = [_seats(run, runs[0]) for run in runs]
    facts = [_facts(*each) for each in zip(runs, _labels(runs), seats, strict=True)]
    found = [
        {(_evaluator(item.evaluator, seated), item.name): item for item in findings(run)}
        for run, seated in zip(runs, seats, strict=True)
    ]
    order = dict.fromkeys(key for items in found for key in items if items[key].attack is not None)
    shared = [key for key in order if sum(key in items for items in found) > 1]
    rows = [_row(key[0], runs, facts, [items.get(key) for items in found]) for key in shared]
    return Comparison(
        runs=facts,
        rows=rows,
        warnings=tuple(_warnings(facts, {key: [items.get(key) for items in found] for key in shared})),
        statements=tuple(_statements(facts, rows, found)),
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name runs by their directory, or by its path where two directories have one name."""
    ids = [run.id for run in runs]
    return [run.id if ids.count(run.id) == 1 else str(run.directory) for run in runs]


def _seats(run: Run, first: Run) -> dict[str, int]:
    """Number a run's evaluator models so that one that also judged the first run has the same number there.

    Returns a number, from 0, for each fingerprint.
    """
    known, own = _fingerprints(first), _fingerprints(run)
    seats = {name: known.index(name) for name in own if name in known}
    free = (number for number in count() if number not in seats.values())
    return seats | {name: next(free) for name in own if name not in seats}


def _fingerprints(run: Run) -> list[str]:
    return [str(judge.get("fingerprint")) for judge in run.judges().values()]


def _evaluator(evaluator: str, seats: Mapping[str, int]) -> str:
    """Return an evaluator's name with the number of its model, from the second on, in place of the model's identity."""
    name, _, identity = evaluator.partition("@")
    seat = next((seat for judge, seat in seats.items() if identity and judge.startswith(identity)), 0)
    plain = re.split(r"[@ ]", name)[0]
    return f"{plain}, judge {seat + 1}" if seat else plain


def _facts(run: Run, label: str, seats: Mapping[str, int]) -> RunFacts:
    manifest = run.manifest
    card, total = manifest["target"]["card"], (manifest.get("ledger") or {}).get("total", {})
    utility = accuracy(card.get("metrics", {}), "holdout")
    return RunFacts(
        id=label,
        status=manifest["status"],
        attack=manifest["attack"]["name"],
        preset=manifest["attack"]["preset"],
        config=manifest["attack"]["config"],
        access=manifest["access"]["granted"],
        cases=tuple(case["id"] for case in manifest["cases"]),
        seed=manifest["seed"],
        target=manifest["target"]["fingerprint"],
        architecture=card["model"]["name"],
        defenses=tuple(use["name"] for use in card.get("defenses", ())),
        holdout_accuracy=utility["value"] if utility else None,
        holdout_interval=Interval(**utility["interval"]) if utility and utility["interval"] else None,
        data=manifest["data"].get("fingerprint"),
        queries=total.get("queries"),
        gradients=total.get("gradients"),
        judges={judge_name(seat): judge for judge, seat in seats.items()},
        failed=sum(case["status"] == "failed" for case in manifest["cases"]),
    )


# differences ---------------------------------------------------------------------------------------


def _row(evaluator: str, runs: Sequence[Run], facts: Sequence[RunFacts], items: Sequence[Finding | None]) -> Row:
    known = next(item for item in items if item is not None)
    entries = [_entry(runs, facts, items, index) for index in range(len(items))]
    return Row(
        name=known.name, evaluator=evaluator, unit=known.unit, direction=known.direction, entries=entries
    )  # fmt: skip


def _entry(runs: Sequence[Run], facts: Sequence[RunFacts], items: Sequence[Finding | None], index: int) -> Entry | None:
    item, first = items[index], items[0]
    if item is None or item.attack is None:
        return None
    ceiling = item.subjects.get(item.ceiling) if item.ceiling else None
    plain: dict[str, Any] = {
        "run": facts[index].id,
        "value": finite(item.attack.value),
        "interval": _bounded(item.attack.interval),
        "floors": {name: finite(item.subjects[name].value) for name in item.floors if name in item.subjects},
        "ceiling": finite(ceiling.value) if ceiling else None,
        "beats_floor": item.beats_floor,
    }
    if index == 0 or first is None or first.attack is None:
        return Entry(**plain)
    return Entry(**plain, **_difference(runs[index], item.attack, runs[0], first.attack))


def _bounded(bounds: Interval | None) -> Interval | None:
    return bounds if bounds and math.isfinite(bounds.low) and math.isfinite(bounds.high) else None


def _difference(run: Run, item: Measurement, first_run: Run, first: Measurement) -> dict[str, Any]:
    """Return this run minus the first one, resampling the classes that both have."""
    mine, other = _by_class(run, item), _by_class(first_run, first)
    common = sorted(mine.keys() & other.keys())
    if not common:
        return {}
    pairs = [[values[name] for name in common] for values in (mine, other)]
    seed = int(digest(item.name, item.evaluator, common)[:8], 16)
    found = paired_difference(pairs[0], common, pairs[1], common, rng=seed)
    bounds = _bounded(Interval(low=found.low, high=found.high, level=found.level))
    known = bounds is not None and bounds.high - bounds.low > 1e-9  # a point would claim certainty
    return {
        "difference": finite(found.estimate), "difference_interval": bounds if known else None,
        "classes": found.clusters, "method": found.method,
    }  # fmt: skip


def _by_class(run: Run, item: Measurement) -> dict[str, float]:
    """Average the cases of each class; a case without a label is a class of its own."""
    labels = {case["id"]: case.get("label") for case in run.manifest["cases"]}
    members: dict[str, list[float]] = {}
    for case_id, value in item.per_case.items():
        label = labels.get(case_id)
        if math.isfinite(value):
            members.setdefault(case_id if label is None else f"label {label}", []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in members.items()}


# what to doubt -------------------------------------------------------------------------------------


def _warnings(facts: Sequence[RunFacts], rows: Mapping[Key, Sequence[Finding | None]]) -> Iterator[str]:
    if not rows:
        yield "No measurement is in two or more runs: there is nothing to compare."
    for run in facts:
        if run.status != "finished":
            yield f"{run.id} did not finish (status {run.status})."
        if run.failed:
            yield f"{run.failed} cases of {run.id} failed and are in no figure."
    first = facts[0]
    for run in facts[1:]:
        yield from (f"{run.id} and {first.id}: {text}." for text in _mismatches(run, first))
    yield from _judge_warnings(facts, rows)


def _mismatches(run: RunFacts, first: RunFacts) -> Iterator[str]:
    if run.data != first.data:
        yield "other data (fingerprints differ), so the figures are not of the same classes and samples"
    if run.cases != first.cases:
        yield "other cases were attacked; differences use only the classes that both have"
    if run.access != first.access:
        yield f"other access was granted ({run.access}, {first.access})"
    if run.attack != first.attack and run.target != first.target:
        yield "both attack and target differ, so a difference cannot be put down to either"
    if run.attack == first.attack and (run.preset, run.config) != (first.preset, first.config):
        yield f"attack {run.attack} ran with other settings ({_changed(run, first)})"
    if run.seed != first.seed:
        yield f"other seeds ({run.seed}, {first.seed}); a difference includes that of the seeds"


def _changed(run: RunFacts, first: RunFacts) -> str:
    mine, other = run.config, first.config
    names = [name for name in {**other, **mine} if mine.get(name) != other.get(name)]
    preset = [f"preset {run.preset} and {first.preset}"] if run.preset != first.preset else []
    return ", ".join([*preset, *names])


def _judge_warnings(facts: Sequence[RunFacts], rows: Mapping[Key, Sequence[Finding | None]]) -> Iterator[str]:
    for name in dict.fromkeys(name for run in facts for name in run.judges):
        if len({run.judges[name] for run in facts if name in run.judges}) > 1:
            yield f"The runs were judged by different models ({name}): their figures are not on one scale."
    different = [key[0] for key, row in rows.items() if len({item.evaluator for item in row if item}) > 1]
    for evaluator in dict.fromkeys(different):
        yield f"Evaluator {evaluator} had another identity in some runs: its figures are not on one scale."


# utility against leakage ---------------------------------------------------------------------------


def _statements(
    facts: Sequence[RunFacts], rows: Sequence[Row], found: Sequence[Mapping[Key, Finding]]
) -> Iterator[str]:
    shared = {(row.evaluator, row.name): row for row in rows if row.entries[0]}
    candidates = {key: item for key, item in found[0].items() if key in shared}
    main = main_finding(candidates.values())
    if main is None:
        return
    row = next(shared[key] for key, item in candidates.items() if item is main)
    for run, entry in zip(facts[1:], row.entries[1:], strict=True):
        if entry is not None and entry.difference is not None:
            yield f"{run.id} against {facts[0].id}: {_leakage(row, entry)}; {_utility(run, facts[0])}."


def _leakage(row: Row, entry: Entry) -> str:
    size = _figure(entry.difference, entry.difference_interval)
    change = f"{row.name} changes by {size} over {entry.classes} classes"
    return f"{_sign(row, entry)} ({change})"


def _sign(row: Row, entry: Entry) -> str:
    bounds = entry.difference_interval
    if bounds is None or row.direction not in ("up", "down"):
        return "whether leakage differs cannot be said"
    if bounds.low <= 0 <= bounds.high:
        return "no difference in leakage is shown"
    return "more leakage" if (bounds.low > 0) == (row.direction == "up") else "less leakage"


def _utility(run: RunFacts, first: RunFacts) -> str:
    if run.target == first.target:
        return "the target is the same, so this compares attacks and not defenses"
    mine, other = run.holdout_accuracy, first.holdout_accuracy
    if mine is None or other is None:
        return "the utility of a target is unknown, so its price cannot be told"
    values = f"{_accuracy(run)} instead of {_accuracy(first)} ({mine - other:+.3f})"
    return f"held-out accuracy of the target {values}"


# text ----------------------------------------------------------------------------------------------


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
            "cover neither another training of the targets nor another seed, and nothing is corrected for "
            "reading many differences."
        )


def _run_cells(run: RunFacts) -> list[object]:
    defenses = ", ".join(run.defenses) or "none"
    plain = [run.id, run.attack, run.access, run.architecture, defenses]
    return [*plain, _accuracy(run), number(run.queries), number(run.gradients)]


def _accuracy(run: RunFacts) -> str:
    if run.holdout_accuracy is None:
        return "unknown"
    return _figure(run.holdout_accuracy, run.holdout_interval)


def _figure(value: float | None, bounds: Interval | None) -> str:
    return figure({"value": value, "interval": asdict(bounds) if bounds else None})


def _row_cells(row: Row) -> Iterator[list[object]]:
    answers = {True: "yes", False: "no", None: "cannot be said"}
    for entry in row.entries:
        if entry is None:
            continue
        value = _figure(entry.value, entry.interval)
        floors = ", ".join(f"{name} {number(floor)}" for name, floor in entry.floors.items()) or "none"
        yield [
            f"{row.name} ({row.direction})", row.evaluator, entry.run, value, floors, number(entry.ceiling),
            answers[entry.beats_floor], _difference_cell(entry),
        ]  # fmt: skip


def _difference_cell(entry: Entry) -> str:
    if entry.difference is None:
        return ""
    return f"{_figure(entry.difference, entry.difference_interval)}, {entry.classes} classes"
