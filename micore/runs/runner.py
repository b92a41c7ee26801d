"""Running an attack: prepare, attack batch by batch, add controls, judge, report; and going on later."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from micore.contracts import Reconstruction
from micore.errors import BudgetExceeded, CaseFailed, Interrupted, MiError, RunError, UsageError
from micore.registry import Registry
from micore.report import write_report
from micore.runs.evaluation import evaluate_run
from micore.runs.keeper import Keeper
from micore.runs.memory import PeakMemory, forget_peak, highest, peak_memory
from micore.runs.preparation import Preparation, prepare
from micore.runs.request import AttackRequest
from micore.runs.session import Session, check_unchanged, manifest, notes, open_session
from micore.runs.sitting import Sitting, start_tile, tiles
from micore.runs.store import Row, Run, now
from micore.runs.subjects import attack_controls, beside_evidence, class_controls, modality_floors, with_cases
from micore.runtime import Progress
from micore.threat import Access, Budget, Spending

SETTLED = ("done", "failed")
KEPT = (*SETTLED, "partial")


def attack(
    registry: Registry, request: AttackRequest, directory: Path | None = None, progress: Progress | None = None
) -> Run:
    """Attack a target and judge what was recovered; return the finished run.

    A budget that was spent and cases that failed do not raise: see `problem`.

    Raises: MiError before anything is written when the request cannot work; Interrupted.
    """
    session = open_session(registry, request, progress)
    session = replace(session, request=_effective(session))
    if directory is None and session.runtime.world > 1:
        raise UsageError("several processes need one place to write to", hint="give -o")
    directory = directory or default_directory(session)
    if session.runtime.rank == 0:
        Run.create(directory, manifest(session))
    session.runtime.barrier()
    return _execute(session, Run.open(directory))


def resume(
    registry: Registry,
    directory: Path,
    *,
    budget: Budget | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Go on with a run that was killed, interrupted, or stopped by its budget.

    Raises: RunError when target or data are not those that the run began with; as `attack`.
    """
    run = Run.open(directory)
    request = AttackRequest.from_dict(run.manifest["request"])
    if budget is not None:
        request = request.with_budget(budget)
    session = open_session(registry, request, progress)
    check_unchanged(session, run)
    _check_kept(run)
    if session.runtime.rank == 0:
        run.mend()  # the other ranks wait for the preparation before they write
    run.manifest.update(request=request.to_dict(), notes=notes(session))
    return _execute(session, run, retry_failed=retry_failed)


def _check_kept(run: Run) -> None:
    """Check that the run still has what its manifest says it has."""
    rows = run.rows()
    lost = [row["id"] for row in run.manifest["cases"] if row["status"] in KEPT and row["id"] not in rows]
    if lost:
        raise RunError(f"{run.directory} has lost its files of {', '.join(lost)}", hint="start a new run")


def default_directory(session: Session) -> Path:
    """Return ``runs/<time>-<attack>-<target>``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{session.spec.name}-{Path(session.request.model).stem}"


def problem(run: Run) -> MiError | None:
    """Return what kept a run from being complete, if anything did."""
    statuses = [row["status"] for row in run.manifest["cases"]]
    failed = [row for row in run.manifest["cases"] if row["status"] == "failed"]
    if run.manifest["status"] == "budget":
        recovered = sum(status in ("done", "partial") for status in statuses)
        return BudgetExceeded(
            f"the budget is spent: {recovered} of {len(statuses)} cases have a reconstruction",
            hint=f"`mi resume {run.directory} --budget-queries N` goes on",
        )
    if failed:
        return CaseFailed(f"{len(failed)} of {len(statuses)} cases failed; the first: {failed[0]['error']}")
    return None


# the parts of a run ----------------------------------------------------------------------------------


def _effective(session: Session) -> AttackRequest:
    """Return the request with absolute paths, so that it can be resumed from anywhere."""
    request = session.request
    judge = request.evaluator_model
    return replace(request, model=_absolute(request.model), evaluator_model=_absolute(judge) if judge else None)


def _absolute(uri: str) -> str:
    return str(Path(uri).resolve()) if Path(uri).exists() else uri


def _execute(session: Session, run: Run, *, retry_failed: bool = False) -> Run:
    leads = session.runtime.rank == 0
    forget_peak(session.runtime.device)
    with _status_on_error(session, run, leads):
        session.registry.observe("mi_run_started", run=run)
        try:
            preparation = _prepare(session, run)
            with _timed(run, "attack_s"):
                complete = _attack_cases(session, run, preparation, retry_failed=retry_failed)
        except BudgetExceeded as error:
            if leads:
                _stop_preparation(session, run, error)
            return run
        _note_peak(session, run, preparation.peak_memory)  # before judges, which are no part of the attack
        session.runtime.barrier()
        if leads:
            with _timed(run, "evaluate_s"):
                _conclude(session, run, preparation)
            _close(session, run, "finished" if complete and _all_settled(run) else "budget")
            session.registry.observe("mi_run_finished", run=run)
        session.runtime.barrier()
    return run if leads else Run.open(run.directory)


@contextmanager
def _status_on_error(session: Session, run: Run, leads: bool) -> Iterator[None]:
    """Record why a run stopped; what it has stays."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if leads:
            run.update(status="interrupted", stopped=now(), monitors=_monitors(session, run))
        raise Interrupted(
            f"interrupted; what is done is kept in {run.directory}", hint=f"`mi resume {run.directory}` continues"
        ) from stop
    except Exception as error:  # told to whoever opens the run, and raised again
        if leads:
            reason = str(error) if isinstance(error, MiError) else f"{type(error).__name__}: {error}"
            run.update(status="failed", stopped=now(), error=reason, monitors=_monitors(session, run))
        raise


@contextmanager
def _timed(run: Run, name: str) -> Iterator[None]:
    """Add the time of the block to the manifest's, which earlier sittings may have begun."""
    started = time.monotonic()
    try:
        yield
    finally:
        timings = run.manifest.setdefault("timings", {})
        timings[name] = round(timings.get(name, 0.0) + time.monotonic() - started, 3)


def _note_peak(session: Session, run: Run, *others: PeakMemory | None) -> None:
    """Put the most memory that any sitting of this process held into the manifest."""
    peak = peak_memory(session.runtime.device)
    run.manifest["peak_memory_bytes"] = highest(run.manifest.get("peak_memory_bytes"), peak, *others)


def _stop_preparation(session: Session, run: Run, error: BudgetExceeded) -> None:
    facts = {"key": session.preparation_key, "cached": False, "seconds": None}
    _note_peak(session, run)
    ledger = session.target.ledger
    run.manifest["preparation"] = {**facts, "spending": ledger.total.to_dict(), "by_access": dict(ledger.by_access)}
    _close(session, run, "budget", note=str(error))
    session.registry.observe("mi_run_finished", run=run)


def _prepare(session: Session, run: Run) -> Preparation:
    """Prepare on the first rank; the others wait and take it from the cache."""
    leads = session.runtime.rank == 0
    if leads:
        run.update(status="preparing")
        run.event("preparing", key=session.preparation_key)
        preparation = _prepared(session)
        facts = {"key": preparation.key, "cached": preparation.cached, "seconds": preparation.seconds}
        spent = {"spending": dict(preparation.spending), "by_access": dict(preparation.by_access)}
        run.manifest["preparation"] = {**facts, **spent}
        run.update(status="attacking")
    session.runtime.barrier()
    if not leads:
        preparation = _prepared(session)
    return preparation


def _prepared(session: Session) -> Preparation:
    key = session.preparation_key
    return prepare(session.attack, session.target, session.public, session.runtime, key)


def _attack_cases(session: Session, run: Run, preparation: Preparation, *, retry_failed: bool) -> bool:
    """Attack what is not settled yet; return False when the budget ended it."""
    rows = run.rows()
    settled = ("done",) if retry_failed else SETTLED
    open_cases = [case for case in session.cases if rows.get(case.id, {}).get("status") not in settled]
    _restore_ledger(session, rows)
    tile = start_tile(session, run, rows)
    keeper = Keeper(session, run, rows, tile)
    sitting = Sitting(session=session, prepared=preparation.prepared, keeper=keeper, tile=tile)
    session.runtime.barrier()  # all ranks must divide the same cases: none may write before all have read
    mine = open_cases[session.runtime.rank :: session.runtime.world]
    size = session.request.batch
    with session.runtime.progress.track(f"attacking {len(session.cases)} cases", len(mine)) as report:
        for start in range(0, len(mine), size):
            batch = mine[start : start + size]
            try:
                sitting.attack(batch)
            except BudgetExceeded as error:
                keeper.stop(batch, "budget")
                run.event("budget", message=str(error))
                return False
            except (KeyboardInterrupt, MiError):
                keeper.stop(batch, "pending")
                raise
            report(start + len(batch))
    return True


def _restore_ledger(session: Session, rows: dict[str, Row]) -> None:
    """Take over what earlier sittings spent, also on cases that are attacked again."""
    ledger = session.target.ledger
    for row in rows.values():
        cases = {row["id"]: row["spending"]}
        ledger.restore({"shared": row["shared_spending"], "cases": cases, "used_access": row["used_access"]})
        ledger.note_by_access(row.get("by_access", {}), row["id"])
    ledger.budget = ledger.budget.share(session.runtime.world, ledger.total.queries)


def _conclude(session: Session, run: Run, preparation: Preparation) -> None:
    """Collect the cases, add the controls, judge."""
    run.collect([case.id for case in session.cases])
    reconstructions = with_cases(run.reconstructions(session.modality), session.cases)
    if not reconstructions:
        return
    _add_controls(session, run, preparation, reconstructions)
    run.update(status="evaluating")
    evaluate_run(
        session.registry, session.runtime, run, request=session.request, dataset=session.dataset,
        modality=session.modality, target=session.loaded, evaluators=session.evaluators, cases=session.cases,
    )  # fmt: skip


def _add_controls(
    session: Session, run: Run, preparation: Preparation, reconstructions: Sequence[Reconstruction]
) -> None:  # fmt: skip
    """Write the controls and previews; judges read them again, so that nobody holds them twice."""
    attack_ = None if session.spec.control else session.attack
    runtime = replace(session.runtime, tile=min(tiles(run.rows()), default=session.runtime.tile))
    controls = attack_controls(attack_, preparation.prepared, reconstructions, runtime)
    controls |= modality_floors(session.modality, [item.case for item in reconstructions], session.dataset)
    controls |= class_controls(session.modality, reconstructions, session.dataset)
    for name, items in controls.items():
        run.write_controls(name, items, session.modality)
    previews = beside_evidence(reconstructions, controls, session.modality)
    session.modality.export(previews, run.directory / "samples")


def _all_settled(run: Run) -> bool:
    rows = run.rows()
    return all(rows.get(case["id"], {}).get("status") in SETTLED for case in run.manifest["cases"])


def _close(session: Session, run: Run, status: str, note: str | None = None) -> None:
    """Write the final manifest and the report."""
    rows = run.rows()
    cases = [_case_row(case, rows.get(case["id"])) for case in run.manifest["cases"]]
    used = _used_access(session, rows)
    found = tiles(rows) or {run.manifest["hardware"]["tile"]}
    run.update(
        status=status, finished=now(), cases=cases, ledger=_ledger(run, rows), stopped=None, error=None,
        hardware={**run.manifest["hardware"], "tile": min(found)},
        access={"granted": session.target.access.label, "used": used.label if used else None},
        queries_by_access=_by_access(run, rows),
        overlap=dict(session.modality.overlap(session.dataset)), monitors=_monitors(session, run),
        notes=[*run.manifest["notes"], *_tile_notes(found), *([note] if note else [])],
    )  # fmt: skip
    write_report(run, session.modality, session.dataset)


def _monitors(session: Session, run: Run) -> dict[str, list[Row]]:
    """Add what defenses observed in this sitting, of the first rank's queries, to what they did in earlier ones."""
    found: dict[str, list[Row]] = dict(run.manifest.get("monitors", {}))
    for name, defense in session.defenses.items():
        findings = dict(defense.findings())
        if findings:
            found[name] = [*found.get(name, []), findings]
    return found


def _tile_notes(found: AbstractSet[int]) -> list[str]:
    """Say that cases were not all computed alike, if so."""
    if len(found) == 1:
        return []
    largest, smallest = max(found), min(found)
    return [f"memory ran out: later cases had {smallest} rows in a forward pass instead of {largest}"]


def _used_access(session: Session, rows: Mapping[str, Row]) -> Access | None:
    """Return the highest access that any rank used in any sitting."""
    found = [Access.parse(row["used_access"]) for row in rows.values() if row["used_access"]]
    mine = session.target.ledger.used_access
    return max([*found, *([mine] if mine else [])], default=None)


def _by_access(run: Run, rows: Mapping[str, Row]) -> dict[str, int]:
    """Add up queries by the access that they needed, over all ranks and sittings, preparation included."""
    parts = [run.manifest.get("preparation", {}), *rows.values()]
    found = Counter[str]()
    for part in parts:
        found.update(part.get("by_access", {}))
    return dict(found)


def _case_row(case: Row, row: Row | None) -> Row:
    if row is None:
        return {**case, "status": "budget" if case["status"] in ("pending", "budget") else case["status"]}
    return {key: row[key] for key in ("id", "label", "status", "error", "seconds", "spending")}


def _ledger(run: Run, rows: dict[str, Row]) -> dict[str, dict[str, int]]:
    """Add up what was spent, over all ranks and sittings."""
    preparation = run.manifest.get("preparation", {"spending": Spending().to_dict()})["spending"]
    shared = Spending.from_dict(preparation)
    cases = Spending()
    for row in rows.values():
        shared.add(Spending.from_dict(row["shared_spending"]))
        cases.add(Spending.from_dict(row["spending"]))
    total = Spending(shared.queries + cases.queries, shared.gradients + cases.gradients)
    return {"preparation": dict(preparation), "shared": shared.to_dict(), "cases": cases.to_dict(),
            "total": total.to_dict()}  # fmt: skip
