"""Run a suite of attacks and write its table into docs/benchmarks.md.

    python benchmarks/run.py benchmarks/plmi.toml -o runs/bench [--only NAME] [--data-root DIR] [--write]

A suite is a TOML file with ``[[row]]`` tables: ``name``, ``data``, ``model``, ``attack`` and, optionally,
``data_options``, ``training``, ``defenses``, ``options``, ``evaluators``, ``classes``, ``precision``,
``seed``. What is there already is not run again, and a run that was stopped continues.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import micore
from micore.contracts import Measurement
from micore.files import safe_name, write_text
from micore.runs import Run

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
COLUMNS = ("setting", "target accuracy", "measurement", "attack", "prior-samples", "wrong-label", "nearest-public",
           "holdout", "classes x samples", "queries", "prepare + attack, s")  # fmt: skip
MEASURED = ("accuracy@1", "accuracy@5", "distance-private", "face-top1", "face-top5", "face-distance")


def main() -> None:
    """Run the rows that are asked for, and print or write the table."""
    arguments = _arguments()
    suite = tomllib.loads(arguments.suite.read_text(encoding="utf-8"))
    rows = [row for row in suite["row"] if arguments.only in (None, row["name"])]
    runs = [(row, _run(row, arguments)) for row in rows]
    text = _table(runs) + "\n\n" + _circumstances(runs, arguments)
    if arguments.write:
        _write(arguments.suite.stem, text)
    sys.stdout.write(text + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where targets and runs go")
    parser.add_argument("--only", help="the row of this name")
    parser.add_argument("--data-root", help="where data sets that are not bundled lie")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    return parser.parse_args()


def _run(row: dict[str, Any], arguments: argparse.Namespace) -> Run:
    folder = arguments.output / safe_name(row["name"])
    target, directory = folder / "target.safetensors", folder / "run"
    data = {"data": row["data"], "data_options": row.get("data_options"), "data_root": arguments.data_root}
    if not target.exists():
        micore.train(model=row["model"], output=target, training=row.get("training"),
                     defenses=row.get("defenses", ()), seed=row.get("seed", 0), **data)  # fmt: skip
    if not (directory / "run.json").exists():
        return micore.attack(row["attack"], model=target, output=directory, options=row.get("options"),
                             classes=row.get("classes"), evaluators=row.get("evaluators"),
                             precision=row.get("precision", "fp32"), seed=row.get("seed", 0), **data)  # fmt: skip
    run = Run.open(directory)
    return run if run.manifest["status"] == "finished" else micore.resume(directory)


def _table(runs: list[tuple[dict[str, Any], Run]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row, run in runs:
        lines += ["| " + " | ".join(cells) + " |" for cells in _cells(row["name"], run)]
    return "\n".join(lines)


def _cells(name: str, run: Run) -> list[list[str]]:
    found = {(item.name, item.subject): item for item in run.measurements()}
    manifest, rows = run.manifest, []
    for measured in MEASURED:
        attack = found.get((measured, "attack"))
        if attack is None:
            continue
        controls = [found.get((measured, subject)) for subject in COLUMNS[4:8]]
        seconds = sum(case.get("seconds") or 0 for case in manifest["cases"])
        rows.append([
            name, f"{manifest['target']['card']['metrics']['holdout_accuracy']:.1%}", measured, _value(attack),
            *map(_value, controls), f"{attack.clusters} x {attack.n // attack.clusters}",
            f"{manifest['ledger']['total']['queries']:,}",
            f"{manifest['preparation']['seconds']:.0f} + {seconds:.0f}",
        ])  # fmt: skip
    return rows


def _value(item: Measurement | None) -> str:
    if item is None:
        return ""
    interval = f" [{item.interval.low:.3g}, {item.interval.high:.3g}]" if item.interval else ""
    return f"{item.value:.3g}{interval}"


def _circumstances(runs: list[tuple[dict[str, Any], Run]], arguments: argparse.Namespace) -> str:
    manifest = runs[0][1].manifest
    hardware = ", ".join(f"{key} {value}" for key, value in manifest["hardware"].items())
    versions = ", ".join(f"{key} {value}" for key, value in manifest["versions"].items())
    judges = {row["name"]: run.judges().get("evaluator-model", {}) for row, run in runs}
    judged = "; ".join(
        f"{name}: {judge['model']}, {judge['metrics'].get('holdout_accuracy', float('nan')):.1%} on held-out samples"
        for name, judge in judges.items() if judge
    )  # fmt: skip
    return (
        f"Command: `python benchmarks/run.py {arguments.suite.as_posix()} -o runs/bench`. Seeds: those of the suite, "
        f"0 where it names none. Machine: {hardware}. Versions: {versions}. Evaluator models: {judged}."
    )


def _write(name: str, text: str) -> None:
    """Replace what stands between the suite's two markers on the page."""
    page = PAGE.read_text(encoding="utf-8")
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    write_text(PAGE, f"{before}{start}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
