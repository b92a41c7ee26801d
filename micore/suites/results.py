"""What a suite found: one document made of the reports of its rows, all that the tables are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from micore.errors import MiError
from micore.files import read_json
from micore.report import facts
from micore.report.facts import accuracy
from micore.suites.commands import RUN, Machine, attack_arguments, shown, train_arguments
from micore.suites.rows import RowPlan, differences, select
from micore.suites.seeds import over_seeds
from micore.suites.suite import Suite

SCHEMA = "micore.bench/1"
PLACE = Path("DIR")
"""Stands for the directory of the benchmark in commands that others repeat."""

UTILITY = ("calibration_error", "score_change")
"""What `micore.utility` measures on held-out data, besides accuracy."""

Document = dict[str, Any]


def collect(
    suite: Suite, path: Path, place: Path, plans: Sequence[RowPlan], only: Sequence[str], machine: Machine
) -> Document:
    """Return what is known of all rows (schema ``micore.bench/1``), without any place of this machine."""
    rows = [_row(plan, place, suite) for plan in plans]
    return {
        "schema": SCHEMA,
        "name": suite.name,
        "command": _bench_command(path, only, machine, plans),
        "asked": [plan.name for plan in select(plans, only)],
        "judges": suite.judges,
        "list_rows": suite.list_rows,
        "columns": _columns(suite, rows),
        "rows": rows,
        "seeds": over_seeds(rows),
        "machines": _machines(rows),
        "versions": _versions(rows),
    }


def _bench_command(path: Path, only: Sequence[str], machine: Machine, plans: Sequence[RowPlan]) -> str:
    """Return the command that makes the same tables."""
    here = Path.cwd()
    suite = path.resolve()
    name = suite.relative_to(here) if suite.is_relative_to(here) else Path(suite.name)
    arithmetic = plans[0].target.arithmetic
    arguments = ["bench", name.as_posix(), "-o", str(PLACE), *(part for text in only for part in ("--only", text))]
    arguments += ["--data-root", "DATA"] if machine.data_root else []
    arguments += ["--device", machine.device] if machine.device != "auto" else []
    arguments += ["--precision", arithmetic.name] if arithmetic.name != "fp32" else []
    arguments += ["--compile"] if arithmetic.compiled else []
    arguments += ["--tile", str(machine.tile)] if machine.tile else []
    return shown(arguments)


# rows ------------------------------------------------------------------------------------------------


def _row(plan: RowPlan, place: Path, suite: Suite) -> Document:
    target, defense, attack, _ = plan.parts
    machine = Machine()
    found: Document = {
        "name": plan.name, "target": target, "defense": defense, "attack": attack, "seed": plan.target.seed,
        "label": plan.attack.label, "budget": plan.budget, "family": plan.target.defense.family,
        "train_command": shown(train_arguments(plan.target, PLACE, machine)),
        "command": shown(attack_arguments(plan, PLACE, machine)),
        **_known(plan, place),
    }  # fmt: skip
    report = _report(plan, place) if found["status"] in ("finished", "failed") else None
    return found | (_results(report, suite) if report else _nothing())


def _known(plan: RowPlan, place: Path) -> Document:
    """Return how far a row came."""
    folder = plan.folder(place)
    try:
        record = read_json(folder / "row.json") if (folder / "row.json").exists() else None
    except MiError as error:
        return {"status": "failed", "error": str(error), "seconds": None, "run": None}
    if record is None:
        return {"status": "not run", "error": None, "seconds": None, "run": None}
    parts = ("target", "attack", "judging") if record["status"] == "finished" else ("target", "attack")
    asked = {part: plan.all_settings[part] for part in parts}
    if changed := differences({part: record["settings"][part] for part in parts}, asked):
        reason = f"was made with other settings ({'; '.join(changed)})"
        return {"status": "other settings", "error": reason, "seconds": None, "run": None}
    report = folder / RUN / "report.html"
    run = report.relative_to(place).as_posix() if report.exists() else None
    return {"status": record["status"], "error": record["error"], "seconds": record["seconds"], "run": run}


def _report(plan: RowPlan, place: Path) -> Document | None:
    path = plan.folder(place) / RUN / "report.json"
    try:
        found: Document | None = read_json(path) if path.exists() else None
    except MiError:
        return None
    return found


def _nothing() -> Document:
    return {
        "holdout_accuracy": None, "utility": dict.fromkeys(UTILITY), "figures": [], "judges": [], "cases": None,
        "prepare_s": None, "prepare_cached": None, "attack_s": None, "queries": None, "gradients": None,
        "peak_memory_bytes": None, "hardware": None, "versions": {}, "overlap": {},
    }  # fmt: skip


def _results(report: Document, suite: Suite) -> Document:
    cost, spending = report["cost"], report["threat"]["spending"]
    total = spending["total"] if spending else {"queries": None, "gradients": None}
    judges, control = [_judge(judge) for judge in report["judges"].values()], report["threat"]["control"]
    identities = [judge["identity"] for judge in judges]
    return {
        "holdout_accuracy": accuracy(report["target"]["metrics"], "holdout"),
        "utility": {name: report["target"]["metrics"].get(f"holdout_{name}") for name in UTILITY},
        "figures": [_figure(row, identities, control) for row in report["results"]["rows"] if "attack" in row["cells"]],
        "judges": judges,
        "cases": {**report["cases"]["counts"], "total": report["cases"]["total"]},
        "prepare_s": cost["preparation_s"], "prepare_cached": cost["preparation_cached"],
        "attack_s": cost["attack_s"], "queries": total["queries"], "gradients": total["gradients"],
        "peak_memory_bytes": cost["peak_memory_bytes"], "hardware": cost["hardware"],
        "versions": report["reproduction"]["versions"], "overlap": dict(facts.overlap(report["data"]["overlap"])),
    }  # fmt: skip


def _judge(found: Mapping[str, Any]) -> Document:
    return {
        "model": found["model"], "identity": found.get("identity", str(found["fingerprint"])[:12]),
        "holdout_accuracy": accuracy(found.get("metrics", {}), "holdout"), "independent": found.get("independent"),
    }  # fmt: skip


def _figure(row: Mapping[str, Any], identities: Sequence[str], control: bool) -> Document:
    """Return a figure with its floors and ceiling; that of a negative control beats nothing."""
    evaluator, _, identity = row["evaluator"].partition("@")
    cells = row["cells"]
    return {
        "name": row["name"], "evaluator": evaluator, "unit": row["unit"], "direction": row["direction"],
        "judge": identities.index(identity) + 1 if identity in identities else None, **cells["attack"],
        "floors": {name: cells[name] for name in row["floors"]}, "highest_floor": row["highest_floor"],
        "ceiling": cells.get(row["ceiling"]), "beats_floor": None if control else row["beats_floor"],
    }  # fmt: skip


# what all rows have in common --------------------------------------------------------------------------


def _columns(suite: Suite, rows: Sequence[Document]) -> list[Document]:
    """Return the figures that have a column: those that the suite names, or all that say something of leakage."""
    found: dict[tuple[str, str, int | None], str] = {}
    for row in rows:
        for figure in row["figures"]:
            found.setdefault((figure["name"], figure["evaluator"], figure["judge"]), figure["direction"])
    names = list(dict.fromkeys(key[0] for key in found))
    ordered = sorted(found, key=lambda key: (names.index(key[0]), key[2] or 0))
    if suite.figures:
        chosen = [key for pattern in suite.figures for key in ordered if fnmatchcase(key[0], pattern)]
    else:
        chosen = [key for key in ordered if found[key] in ("up", "down")]
    return [
        {"name": name, "evaluator": evaluator, "judge": judge, "direction": found[name, evaluator, judge]}
        for name, evaluator, judge in dict.fromkeys(chosen)
    ]


def _machines(rows: Sequence[Document]) -> list[Document]:
    """Return the machines, each once, without the tile, which is each row's own."""
    found: list[Document] = []
    for row in rows:
        machine = {key: value for key, value in (row["hardware"] or {}).items() if key not in ("tile", "precision")}
        if machine and machine not in found:
            found.append(machine)
    return found


def _versions(rows: Sequence[Document]) -> dict[str, list[str]]:
    """Return the versions of every package, more than one where rows differ."""
    found: dict[str, list[str]] = {}
    for name, version in _all_versions(rows):
        known = found.setdefault(name, [])
        if version not in known:
            known.append(version)
    return found


def _all_versions(rows: Sequence[Document]) -> Iterator[tuple[str, str]]:
    for row in rows:
        yield from row["versions"].items()
