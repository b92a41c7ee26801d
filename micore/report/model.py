"""From a run directory to one plain document that every rendering is made of.

A run may have stopped anywhere, so everything but the request is looked up with care: what is missing
is None in the document, and the renderings say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from micore.contracts import Measurement
from micore.report import words
from micore.report.command import attack_command
from micore.report.cost import cost
from micore.report.curves import curves
from micore.report.figures import finite
from micore.report.findings import Finding, class_names, findings, floor_names, main_finding, subject_order
from micore.report.glossary import TERMS, explain, paragraph
from micore.report.progress import progress
from micore.report.statements import headline, not_tested, validity

if TYPE_CHECKING:
    from micore.runs.store import Row, Run

SCHEMA = "micore.report/1"
MANY_CLASSES = 20
EXTREMES = 10
"""Of more than `MANY_CLASSES` cases the report shows this many of the worst and of the best."""

Document = dict[str, Any]


def build(run: Run) -> Document:
    """Return everything that a report says, as JSON values (schema ``micore.report/1``).

    Raises: RunError when the run directory is damaged.
    """
    manifest, rows, found = run.manifest, run.rows(), findings(run)
    parts: Document = {
        "schema": SCHEMA,
        "run": _run(run),
        "threat": _threat(manifest),
        "target": _target(manifest["target"]),
        "data": {**manifest["data"], "overlap": manifest.get("overlap") or None},
        "results": _results(run, found),
        "curves": curves(run, found),
        "progress": progress(rows.values()),
        "judges": run.judges(),
        "classes": _classes(run, found),
        "cost": cost(run, found),
        "cases": _cases(manifest, rows),
        "controls": list(floor_names(run)),
        "reproduction": _reproduction(manifest),
        "glossary": _glossary(found),
    }
    parts["validity"] = validity(parts, manifest.get("notes", ()))
    parts["not_tested"] = not_tested(parts)
    parts["headline"] = headline(parts)
    return parts


def _run(run: Run) -> Document:
    manifest = run.manifest
    return {
        "id": run.id,
        "status": manifest["status"],
        "status_text": words.STATUSES.get(manifest["status"], f"not finished ({manifest['status']})"),
        "complete": manifest["status"] == "finished",
        "created": manifest.get("created"),
        "finished": manifest.get("finished") or manifest.get("stopped"),
        "error": manifest.get("error"),
    }


def _threat(manifest: Mapping[str, Any]) -> Document:
    attack, access, request = manifest["attack"], manifest["access"], manifest["request"]
    return {
        "attack": {key: attack.get(key) for key in ("name", "summary", "paper", "distribution", "version")},
        "control": bool(attack.get("control")),
        "preset": attack.get("preset"),
        "config": attack.get("config", {}),
        "goal": attack.get("goal"),
        "goal_text": words.GOALS.get(str(attack.get("goal")), "unknown"),
        "modality": attack.get("modality"),
        "evidence": manifest.get("evidence"),
        "access": {**access, "text": words.access_text(access["granted"], manifest["target"]["card"]["role"])},
        "public_samples": manifest["data"].get("splits", {}).get("public"),
        "spending": manifest.get("ledger"),
        "budget": request["budget"],
    }


def _target(target: Mapping[str, Any]) -> Document:
    card = target["card"]
    return {
        "uri": target["uri"],
        "fingerprint": target["fingerprint"],
        "architecture": card["model"],
        "role": card["role"],
        "classes": len(card["classes"]),
        "input": card["input"],
        "data": card.get("data", {}),
        "training": card.get("training", {}),
        "metrics": card.get("metrics", {}),
        "defenses": list(card.get("defenses", ())),
        "seed": card.get("seed"),
        "versions": card.get("versions", {}),
    }


# results -------------------------------------------------------------------------------------------


def _results(run: Run, found: Sequence[Finding]) -> Document:
    main = main_finding(found)
    return {
        "subjects": [
            {"name": name, "text": words.SUBJECTS.get(name, "control: " + name)} for name in subject_order(found)
        ],
        "rows": [_result(item, item is main) for item in found],
        "units": words.units(run.manifest["attack"]["goal"])[1],
        "notes": _notes(run.measurements()),
    }


def _result(item: Finding, is_main: bool) -> Document:
    floor = item.highest_floor
    return {
        "name": item.name,
        "evaluator": item.evaluator,
        "unit": item.unit,
        "direction": item.direction,
        "direction_text": words.DIRECTIONS.get(item.direction, item.direction),
        "main": is_main,
        "cells": {name: _cell(measurement) for name, measurement in item.subjects.items()},
        "floors": [name for name in item.floors if name in item.subjects],
        "highest_floor": floor.subject if floor else None,
        "ceiling": item.ceiling,
        "beats_floor": item.beats_floor,
        "overlaps_floor": item.overlaps_floor,
        "ceiling_beyond_floor": item.ceiling_beyond_floor,
        "reach": item.reach,
    }


def _cell(item: Measurement) -> Document:
    bounds = item.interval
    low, high = (finite(bounds.low), finite(bounds.high)) if bounds else (None, None)
    known = bounds is not None and low is not None and high is not None
    return {
        "value": finite(item.value),
        "interval": {"low": low, "high": high, "level": bounds.level} if known and bounds else None,
        "n": item.n,
        "clusters": item.clusters,
    }


def _notes(measurements: Iterable[Measurement]) -> list[Document]:
    """Gather the evaluators' notes: each once, with the names and subjects that it is about."""
    gathered: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for item in measurements:
        for note in item.notes:
            names, subjects = gathered.setdefault((item.evaluator, note), ({}, {}))
            names[item.name] = None
            subjects[item.subject] = None
    return [
        {"evaluator": evaluator, "note": note, "names": list(names), "subjects": list(subjects)}
        for (evaluator, note), (names, subjects) in gathered.items()
    ]


def _classes(run: Run, found: Sequence[Finding]) -> Document:
    """Return the attack's figures case by case, ordered from most to least leakage by the main figure."""
    main = main_finding(found)
    measured = [item for item in found if item.attack is not None and item.attack.per_case]
    columns = [_column(item) for item in measured]
    rows = [_class_row(run, case, measured) for case in run.manifest["cases"]]
    position = next((index for index, item in enumerate(measured) if item is main), None)
    if position is not None:
        sign = -1 if columns[position]["direction"] == "up" else 1
        rows.sort(key=lambda row: _rank(row["values"][position], sign))
    many = len(rows) > MANY_CLASSES
    shown = [*rows[:EXTREMES], *rows[-EXTREMES:]] if many and position is not None else rows[:MANY_CLASSES]
    return {
        "columns": columns, "rows": shown, "total": len(rows), "extremes": EXTREMES if many else None,
        "ordered_by": main.name if main is not None and position is not None else None,
    }  # fmt: skip


def _column(item: Finding) -> Document:
    """Return the head of a column, with floor and ceiling over all cases."""
    ceiling = item.subjects.get(item.ceiling) if item.ceiling else None
    bounds = {"floor": item.highest_floor, "ceiling": ceiling}
    return {
        "name": item.name, "evaluator": item.evaluator, "direction": item.direction,
        **{side: {"name": found.subject, "value": finite(found.value)} if found else None
           for side, found in bounds.items()},
    }  # fmt: skip


def _rank(value: float | None, sign: int) -> tuple[bool, float]:
    return value is None, 0.0 if value is None else sign * value


def _class_row(run: Run, case: Row, measured: Sequence[Finding]) -> Document:
    values = [item.attack.per_case.get(case["id"]) if item.attack else None for item in measured]
    return {
        "id": case["id"], "class": class_name(run, case.get("label")), "status": case["status"],
        "values": [finite(value) for value in values],
    }  # fmt: skip


def class_name(run: Run, label: int | None) -> str | None:
    """Return the name of a class, or None for a case without any."""
    names = class_names(run)
    return str(names[label]) if label is not None and 0 <= label < len(names) else None


# cases and the rest --------------------------------------------------------------------------------------


def _cases(manifest: Mapping[str, Any], rows: Mapping[str, Row]) -> Document:
    """Count the cases by status and list those without a full result, with the reason."""
    known = [{**case, **rows.get(case["id"], {})} for case in manifest["cases"]]
    troubled = [
        {key: row.get(key) for key in ("id", "label", "status", "error")} for row in known if row["status"] != "done"
    ]
    counts = Counter(row["status"] for row in known)
    return {
        "total": len(known), "counts": dict(counts), "troubled": troubled,
        "recovered": counts["done"] + counts["partial"],
    }  # fmt: skip


def _reproduction(manifest: Mapping[str, Any]) -> Document:
    return {
        "command": attack_command(manifest["request"]),
        "seed": manifest["seed"],
        "target_fingerprint": manifest["target"]["fingerprint"],
        "data_fingerprint": manifest["data"].get("fingerprint"),
        "preparation_key": (manifest.get("preparation") or {}).get("key"),
        "versions": manifest.get("versions", {}),
        "request": manifest["request"],
    }


def _glossary(found: Sequence[Finding]) -> list[Document]:
    entries = {item.name: explain(item.name, item.evaluator, item.unit, item.direction) for item in found}
    entries |= {term: paragraph(text) for term, text in TERMS.items()}
    return [{"term": term, "text": text} for term, text in entries.items()]
