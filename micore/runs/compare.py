"""Several runs side by side: what each leaks, how they differ class by class, and whether that is fair."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import Any

from micore.contracts import Interval, Measurement
from micore.errors import UsageError
from micore.files import digest
from micore.kit.statistics import holm, paired_difference, sign_flip_test
from micore.report.curves import total
from micore.report.facts import accuracy
from micore.report.figures import figure, finite
from micore.report.findings import OVERALL, Finding, findings, main_finding
from micore.report.statements import overlap_warnings
from micore.runs.at_budget import Stand, budget_of, findings_at, stand_within
from micore.runs.fairness import budget_warnings, fair_warnings, few_classes
from micore.runs.judges import judge_name
from micore.runs.store import Run

COMPARISON_SCHEMA = "micore.comparison/1"

Key = tuple[str, str]
"""The evaluator and the name of a measurement."""

ALPHA = 0.05
"""A difference is shown where its corrected p-value is at most this, and its interval excludes 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a comparison says of a run besides its figures; overlap: where the adversary's data hold private ones."""

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
    compared_queries: int | None
    judges: Mapping[str, str]
    failed: int
    overlap: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run's figure, and its difference to the first run over the ``classes`` that both attacked.

    p_value: of the difference, by signs of the classes; p_corrected: for all differences of the comparison at once.
    """

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
    p_value: float | None = None
    p_corrected: float | None = None

    def differs(self, p_value: float | None) -> bool | None:
        """Whether a difference is shown, by a p-value of it; None where that cannot be said."""
        bounds = self.difference_interval
        if bounds is None or p_value is None:
            return None
        return p_value <= ALPHA and not bounds.low <= 0 <= bounds.high


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

    warnings: what makes the runs less than comparable; statements: utility against leakage; at_budget: the queries
    within which the figures were reached, None: those of the end of each run.
    """

    runs: Sequence[RunFacts]
    rows: Sequence[Row]
    warnings: Sequence[str] = field(default_factory=tuple)
    statements: Sequence[str] = field(default_factory=tuple)
    at_budget: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"schema": COMPARISON_SCHEMA, **asdict(self)}

    def text(self) -> str:
        """Return the comparison as Markdown."""
        from micore.runs.comparison_text import to_text

        return to_text(self)


def compare(runs: Sequence[Run], *, at_budget: int | str | None = None) -> Comparison:
    """Compare every measurement that at least two of the runs have; differences are to the first run.

    at_budget: compare each run at its last stand that cost no more queries, preparation included, or, ``equal``, no
    more than the cheapest of the runs spent in all; None: at its end.

    Raises: UsageError for fewer than two runs, or the same one twice, or no equal budget.
    """
    names = [run.directory.resolve() for run in runs]
    if len(runs) < 2 or len(set(names)) != len(names):
        raise UsageError("a comparison needs two or more different runs")
    seats = [_seats(run, runs[0]) for run in runs]
    budget = None if at_budget is None else budget_of(runs, at_budget)
    stood = [_stand(run, budget) for run in runs]
    facts = [_facts(*each) for each in zip(runs, _labels(runs), seats, stood, strict=True)]
    found = [
        {(_evaluator(item.evaluator, seated), item.name): item for item in findings_at(run, findings(run), stand)}
        for run, seated, stand in zip(runs, seats, stood, strict=True)
    ]
    order = dict.fromkeys(key for items in found for key in items if items[key].attack is not None)
    shared = [key for key in order if sum(key in items for items in found) > 1]
    rows = _corrected([_row(key[0], runs, facts, [items.get(key) for items in found]) for key in shared])
    return Comparison(
        runs=facts,
        rows=rows,
        warnings=(
            *fair_warnings(facts, {key: [items.get(key) for items in found] for key in shared}),
            *budget_warnings(facts, budget),
            *few_classes([entry.classes for row in rows for entry in row.entries if entry]),
        ),
        statements=tuple(_statements(facts, rows, found)),
        at_budget=budget,
    )


def _stand(run: Run, budget: int | None) -> Stand | None:
    return Stand(queries=total(run)) if budget is None else stand_within(run, budget)


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


def _facts(run: Run, label: str, seats: Mapping[str, int], stand: Stand | None) -> RunFacts:
    manifest = run.manifest
    card, whole = manifest["target"]["card"], (manifest.get("ledger") or {}).get("total", {})
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
        queries=whole.get("queries"),
        gradients=whole.get("gradients"),
        compared_queries=stand.queries if stand else None,
        judges={judge_name(seat): judge for judge, seat in seats.items()},
        failed=sum(case["status"] == "failed" for case in manifest["cases"]),
        overlap=tuple(overlap_warnings(manifest.get("overlap") or None)),
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
        "p_value": sign_flip_test([one - two for one, two in zip(*pairs, strict=True)], rng=seed),
    }  # fmt: skip


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Correct the p-values of all differences that say something of leakage for being asked at once (Holm)."""
    asked = [
        (row, place, entry.p_value)
        for row in rows
        if row.direction in OVERALL
        for place, entry in enumerate(row.entries)
        if entry is not None and entry.p_value is not None
    ]
    corrected = holm([value for _, _, value in asked])
    known = {(id(row), place): value for (row, place, _), value in zip(asked, corrected, strict=True)}
    return [
        replace(
            row,
            entries=[
                replace(entry, p_corrected=known.get((id(row), place))) if entry else None
                for place, entry in enumerate(row.entries)
            ],
        )
        for row in rows
    ]


def _by_class(run: Run, item: Measurement) -> dict[str, float]:
    """Average the cases of each class; a case without a label is a class of its own."""
    labels = {case["id"]: case.get("label") for case in run.manifest["cases"]}
    members: dict[str, list[float]] = {}
    for case_id, value in item.per_case.items():
        label = labels.get(case_id)
        if math.isfinite(value):
            members.setdefault(case_id if label is None else f"label {label}", []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in members.items()}


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
    asked = [(run, entry) for run, entry in zip(facts[1:], row.entries[1:], strict=True) if entry and entry.classes]
    corrected = holm([1.0 if entry.p_value is None else entry.p_value for _, entry in asked])
    for (run, entry), p_value in zip(asked, corrected, strict=True):
        yield f"{run.id} against {facts[0].id}: {_leakage(row, entry, p_value)}; {_utility(run, facts[0])}."


def _leakage(row: Row, entry: Entry, p_value: float) -> str:
    size = shown(entry.difference, entry.difference_interval)
    change = f"{row.name} changes by {size} over {entry.classes} classes, p = {p_value:.2g}"
    return f"{_sign(row, entry, p_value)} ({change})"


def _sign(row: Row, entry: Entry, p_value: float) -> str:
    bounds, differs = entry.difference_interval, entry.differs(p_value)
    if bounds is None or differs is None or row.direction not in OVERALL:
        return "whether leakage differs cannot be said"
    if not differs:
        return "no difference in leakage is shown"
    return "more leakage" if (bounds.low > 0) == (row.direction == "up") else "less leakage"


def _utility(run: RunFacts, first: RunFacts) -> str:
    if run.target == first.target:
        return "the target is the same, so this compares attacks and not defenses"
    mine, other = run.holdout_accuracy, first.holdout_accuracy
    if mine is None or other is None:
        return "the utility of a target is unknown, so its price cannot be told"
    values = f"{shown_accuracy(run)} instead of {shown_accuracy(first)} ({mine - other:+.3f})"
    return f"held-out accuracy of the target {values}"


def shown_accuracy(run: RunFacts) -> str:
    """Write a target's accuracy with its interval."""
    return "unknown" if run.holdout_accuracy is None else shown(run.holdout_accuracy, run.holdout_interval)


def shown(value: float | None, bounds: Interval | None) -> str:
    """Write a figure with its interval."""
    return figure({"value": value, "interval": asdict(bounds) if bounds else None})
