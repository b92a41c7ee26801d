"""Running an attack: prepare, attack batch by batch, add controls, judge, report; and going on later."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from micore.contracts import Case, HasPrior, Prepared
from micore.errors import BudgetExceeded, CaseFailed, Interrupted, MiError, RunError, UsageError
from micore.registry import Registry
from micore.report import write_report
from micore.runs.evaluation import evaluate_run
from micore.runs.keeper import Keeper
from micore.runs.preparation import Preparation, prepare
from micore.runs.request import AttackRequest
from micore.runs.session import Session, check_unchanged, manifest, open_session
from micore.runs.store import Row, Run, now
from micore.runs.subjects import PRIOR_SAMPLES, sample_prior
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
        run.clear_leftovers()  # the other ranks wait for the preparation before they write
    run.manifest.update(request=request.to_dict(), notes=manifest(session)["notes"])
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
    with _status_on_error(run, leads):
        session.registry.observe("mi_run_started", run=run)
        try:
            preparation = _prepare(session, run)
            complete = _attack_cases(session, run, preparation, retry_failed=retry_failed)
        except BudgetExceeded as error:
            if leads:
                _stop_preparation(session, run, error)
            return run
        session.runtime.barrier()
        if leads:
            _conclude(session, run, preparation)
            _close(session, run, "finished" if complete and _all_settled(run) else "budget")
            session.registry.observe("mi_run_finished", run=run)
        session.runtime.barrier()
    return run if leads else Run.open(run.directory)


@contextmanager
def _status_on_error(run: Run, leads: bool) -> Iterator[None]:
    """Record why a run stopped; what it has stays."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if leads:
            run.update(status="interrupted", stopped=now())
        raise Interrupted(
            f"interrupted; what is done is kept in {run.directory}", hint=f"`mi resume {run.directory}` continues"
        ) from stop
    except Exception as error:  # told to whoever opens the run, and raised again
        if leads:
            reason = str(error) if isinstance(error, MiError) else f"{type(error).__name__}: {error}"
            run.update(status="failed", stopped=now(), error=reason)
        raise


def _stop_preparation(session: Session, run: Run, error: BudgetExceeded) -> None:
    facts = {"key": session.preparation_key, "cached": False, "seconds": None}
    run.manifest["preparation"] = {**facts, "spending": session.target.ledger.total.to_dict()}
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
        run.manifest["preparation"] = {**facts, "spending": dict(preparation.spending)}
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
    keeper = Keeper(session, run, rows)
    session.runtime.barrier()  # all ranks must divide the same cases: none may write before all have read
    mine = open_cases[session.runtime.rank :: session.runtime.world]
    size = session.request.batch
    with session.runtime.progress.track(f"attacking {len(session.cases)} cases", len(mine)) as report:
        for start in range(0, len(mine), size):
            batch = mine[start : start + size]
            try:
                _run_batch(session, batch, preparation.prepared, keeper)
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
    ledger.budget = ledger.budget.share(session.runtime.world, ledger.total.queries)


def _run_batch(session: Session, batch: Sequence[Case], prepared: Prepared | None, keeper: Keeper) -> None:
    """Attack a batch; if it breaks, attack its unfinished cases one by one, to tell which is at fault."""
    waiting = {case.id: case for case in batch}
    keeper.begin(len(batch))
    try:
        for reconstruction in session.attack.run(session.target, batch, prepared, session.runtime):
            case_id = reconstruction.case.id
            if waiting.pop(case_id, None) is None:
                raise ValueError(f"the attack gave back {case_id!r} twice, or without being asked")
            keeper.keep(reconstruction)
    except CaseFailed as error:
        _isolate(session, list(waiting.values()), prepared, keeper, error)
    except MiError:
        raise
    except Exception as error:  # the fourth seam: an attack's own fault is a row, not the end of the run
        _isolate(session, list(waiting.values()), prepared, keeper, error)
    else:
        for case in waiting.values():
            keeper.fail(case, "the attack gave nothing back for this case")


def _isolate(
    session: Session, cases: Sequence[Case], prepared: Prepared | None, keeper: Keeper, error: Exception
) -> None:
    if keeper.size == 1:
        for case in cases:
            keeper.fail(case, f"{type(error).__name__}: {error}")
        return
    for case in cases:
        _run_batch(session, [case], prepared, keeper)


def _conclude(session: Session, run: Run, preparation: Preparation) -> None:
    """Collect the cases, add the controls, judge."""
    run.collect([case.id for case in session.cases])
    reconstructions = run.reconstructions(session.modality)
    if not reconstructions:
        return
    attack_ = session.attack
    if isinstance(attack_, HasPrior) and preparation.prepared is not None and not session.spec.control:
        prior = attack_.prior(preparation.prepared, session.runtime)
        controls = sample_prior(prior, reconstructions, session.runtime)
        run.write_controls(PRIOR_SAMPLES, controls, session.modality)
    previews = {item.case.id: item.samples for item in reconstructions}
    session.modality.export(previews, run.directory / "samples")
    run.update(status="evaluating")
    evaluate_run(
        session.registry, session.runtime, run, request=session.request, dataset=session.dataset,
        modality=session.modality, target=session.bundle, evaluators=session.evaluators,
    )  # fmt: skip


def _all_settled(run: Run) -> bool:
    rows = run.rows()
    return all(rows.get(case["id"], {}).get("status") in SETTLED for case in run.manifest["cases"])


def _close(session: Session, run: Run, status: str, note: str | None = None) -> None:
    """Write the final manifest and the report."""
    rows = run.rows()
    cases = [_case_row(case, rows.get(case["id"])) for case in run.manifest["cases"]]
    used = _used_access(session, rows)
    run.update(
        status=status, finished=now(), cases=cases, ledger=_ledger(run, rows), stopped=None, error=None,
        access={"granted": session.target.access.label, "used": used.label if used else None},
        overlap=dict(session.modality.overlap(session.dataset)),
        notes=[*run.manifest["notes"], *([note] if note else [])],
    )  # fmt: skip
    write_report(run, session.modality, session.dataset)


def _used_access(session: Session, rows: Mapping[str, Row]) -> Access | None:
    """Return the highest access that any rank used in any sitting."""
    found = [Access.parse(row["used_access"]) for row in rows.values() if row["used_access"]]
    mine = session.target.ledger.used_access
    return max([*found, *([mine] if mine else [])], default=None)


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
