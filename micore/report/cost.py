"""What the attack cost: by part, by case, and for each success."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from micore.contracts import Measurement
from micore.report.curves import spent_at, stands
from micore.report.figures import finite
from micore.report.findings import Finding, main_finding

if TYPE_CHECKING:
    from micore.runs.store import Row, Run

Document = dict[str, Any]

SHARES = ("share", "rate", "fraction")
MOST = 0.5
"""The share of a case's samples from which on the case counts as recovered for the first time."""

RECOVERED = ("done", "partial")

NOT_RECORDED = "the run did not end, so what it spent is not known"
NO_SHARE = "no figure of this run is a share of what was recovered, where higher is more"
NO_CASES = "the figure was not measured case by case"
NO_SUCCESS = "nothing was recovered by this figure"


def cost(run: Run, found: Sequence[Finding]) -> Document:
    """Return time, memory and machine, and what was spent by part (``parts``), by case and for each success."""
    manifest, rows = run.manifest, run.rows()
    seconds = [row["seconds"] for row in rows.values() if row.get("seconds") is not None]
    preparation, timings = manifest.get("preparation"), manifest.get("timings", {})
    attack_s = timings.get("attack_s", round(sum(seconds), 3) if seconds else None)
    prepare_s = preparation["seconds"] if preparation else None
    main = _success_figure(found)
    cases = _cases(run, rows, main)
    return {
        "preparation_s": prepare_s,
        "preparation_cached": preparation["cached"] if preparation else None,
        "attack_s": attack_s,
        "evaluation_s": timings.get("evaluate_s"),
        "cases_timed": len(seconds),
        "peak_memory_bytes": manifest.get("peak_memory_bytes"),
        "wall_s": _elapsed(manifest.get("created"), manifest.get("finished")),
        "target_training_s": manifest["target"]["card"].get("training", {}).get("seconds"),
        "hardware": manifest.get("hardware", {}),
        "queries_by_access": manifest.get("queries_by_access") or None,
        "parts": list(_parts(manifest.get("ledger"), prepare_s, attack_s)),
        "cases": cases,
        "success": _success(_total(manifest.get("ledger"), prepare_s, attack_s), main, cases),
    }


def _elapsed(start: str | None, end: str | None) -> float | None:
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _parts(ledger: Mapping[str, Any] | None, prepare_s: float | None, attack_s: float | None) -> Iterator[Document]:
    """Yield what the parts of the attack spent, and all of them; nothing for a run that did not end."""
    if ledger is None:
        return
    kinds = ("queries", "gradients")
    shared = {kind: ledger["shared"][kind] - ledger["preparation"][kind] for kind in kinds}
    yield {"part": "preparation", **{kind: ledger["preparation"][kind] for kind in kinds}, "seconds": prepare_s}
    attacking = {kind: shared[kind] + ledger["cases"][kind] for kind in kinds}
    yield {"part": "attacking", **attacking, "seconds": attack_s}
    total = None if attack_s is None else round(attack_s + (prepare_s or 0.0), 3)
    yield {"part": "total", **{kind: ledger["total"][kind] for kind in kinds}, "seconds": total}


# by case -------------------------------------------------------------------------------------------


def _cases(run: Run, rows: Mapping[str, Row], main: Finding | None) -> list[Document]:
    """Return what each case spent, in the run's order, with the figure of success and when it first was one."""
    earlier = stands(run.measurements()).get((main.evaluator, main.name), {}) if main else {}
    return [_case(case["id"], rows.get(case["id"], {}), main, earlier) for case in run.manifest["cases"]]


def _case(case_id: str, row: Mapping[str, Any], main: Finding | None, earlier: Mapping[int, Measurement]) -> Document:
    spent = row.get("spending") or {}
    value = main.attack.per_case.get(case_id) if main and main.attack else None
    return {
        "id": case_id, "status": row.get("status"), "queries": spent.get("queries"),
        "gradients": spent.get("gradients"), "seconds": row.get("seconds"), "success": finite(value),
        "first_success": _first(case_id, row, earlier, value) if earlier and spent else None,
    }  # fmt: skip


def _first(
    case_id: str, row: Mapping[str, Any], earlier: Mapping[int, Measurement], value: float | None
) -> int | None:  # fmt: skip
    """Return what a case had spent when most of its samples were right for the first time; None: never."""
    for index in sorted(earlier):
        if earlier[index].per_case.get(case_id, 0.0) >= MOST:
            return spent_at(row, index)
    return int(row["spending"]["queries"]) if value is not None and value >= MOST else None


# for each success ----------------------------------------------------------------------------------


def _success_figure(found: Sequence[Finding]) -> Finding | None:
    """Return the figure that counts successes: a share of what was recovered, the headline's if it is one."""
    return main_finding(item for item in found if item.unit in SHARES and item.direction == "up")


def _total(
    ledger: Mapping[str, Any] | None, prepare_s: float | None, attack_s: float | None
) -> dict[str, float | None] | None:  # fmt: skip
    if ledger is None:
        return None
    seconds = None if attack_s is None else attack_s + (prepare_s or 0.0)
    return {"queries": ledger["total"]["queries"], "gradients": ledger["total"]["gradients"], "seconds": seconds}


def _success(total: Mapping[str, float | None] | None, main: Finding | None, cases: Sequence[Document]) -> Document:
    """Divide what was spent by the cases that were recovered, each counted by its share.

    What was spent on cases that the figure is not about is left out, on those that failed it is not. beyond_floor: the
    same for what the highest floor does not give anyway. A quotient that has no meaning is None, and ``reason`` says
    why.
    """
    if total is None or main is None or main.attack is None:
        return _unknown(NOT_RECORDED if total is None else NO_SHARE)
    values = [row["success"] for row in cases if row["success"] is not None]
    known = {"name": main.name, "evaluator": main.evaluator, "cases": len(values), "successes": round(sum(values), 6)}
    if not values:
        return _unknown(NO_CASES) | {"name": main.name, "evaluator": main.evaluator}
    floor = main.highest_floor
    beyond = None if floor is None else sum(values) - len(values) * floor.value
    apart = [row for row in cases if row["success"] is None and row["status"] in RECOVERED]
    spent = {
        kind: None if value is None else value - sum(row[kind] or 0 for row in apart) for kind, value in total.items()
    }
    return {
        **known,
        "floor": floor.subject if floor else None,
        "each": _shares(spent, sum(values)),
        "beyond_floor": _shares(spent, beyond),
        "reason": None if sum(values) > 0 else NO_SUCCESS,
    }


def _unknown(reason: str) -> Document:
    return {
        "name": None, "evaluator": None, "cases": 0, "successes": None, "floor": None, "each": None,
        "beyond_floor": None, "reason": reason,
    }  # fmt: skip


def _shares(spent: Mapping[str, float | None], successes: float | None) -> Document | None:
    if successes is None or successes <= 0:
        return None
    return {kind: None if value is None else round(value / successes, 3) for kind, value in spent.items()}
