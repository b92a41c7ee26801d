"""Running a suite, row by row; what is there already is kept, and what was stopped goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from micore.errors import BudgetExceeded, Interrupted, MiError, RunError
from micore.files import read_json, require_writable, write_json
from micore.registry import Registry
from micore.runtime import Progress
from micore.suites.checks import check_suite
from micore.suites.commands import (
    RUN,
    Machine,
    attack_arguments,
    evaluate_arguments,
    resume_arguments,
    train_arguments,
)
from micore.suites.launchers import Job, Launch, Launcher, check_launch, launcher
from micore.suites.pages import check_page, write_pages
from micore.suites.processes import Outcome, only_one
from micore.suites.results import collect
from micore.suites.rows import Precision, RowPlan, Settings, TargetPlan, differences, plan_rows, select
from micore.suites.suite import Suite, load_suite

ROW_SCHEMA = "micore.bench-row/1"
TARGET_SCHEMA = "micore.bench-target/1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a suite is run.

    only: names or patterns of rows; page: a Markdown page to put the tables into; renew: make rows anew whose
    entries have changed; launch: where rows run.
    """

    only: Sequence[str] = ()
    machine: Machine = field(default_factory=Machine)
    arithmetic: Precision = field(default_factory=Precision)
    page: Path | None = None
    renew: bool = False
    launch: Launch = field(default_factory=Launch)


def run_suite(
    registry: Registry,
    path: Path,
    place: Path,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run the rows of a suite that are not finished, write the tables and return their document.

    A row that fails is a row with its reason; it does not raise.

    Raises: MiError before anything runs, when the suite or what is in ``place`` does not fit; Interrupted.
    """
    options = options or Options()
    suite = load_suite(path)
    check_launch(options.launch, options.machine, options.arithmetic)
    check_suite(registry, path, suite)
    rows = plan_rows(suite, options.arithmetic)
    chosen = select(rows, options.only)
    if options.page is not None:
        check_page(options.page, suite.name)
    require_writable(place / "bench.json")
    place = place.absolute()
    with only_one(place) as held, launcher(options.launch, options.machine, place, held) as launched:
        locks = {row.target.name: Lock() for row in rows}
        bench = _Bench(
            suite=suite, path=path, place=place, options=options, rows=rows, launcher=launched, say=say, locks=locks
        )
        bench.check_unchanged(chosen)
        bench.run(chosen, progress or Progress())
        return bench.conclude(finished=True)


@dataclass(frozen=True, kw_only=True)
class _Bench:
    suite: Suite
    path: Path
    place: Path
    options: Options
    rows: Sequence[RowPlan]
    launcher: Launcher
    say: Callable[[str], None]
    locks: Mapping[str, Lock]
    busy: set[str] = field(default_factory=set)

    def check_unchanged(self, chosen: Sequence[RowPlan]) -> None:
        """Check that finished and half-finished rows are those that the suite asks for; forget others, if asked to."""
        changed = {row.name: found for row in chosen if (found := self._changes(row))}
        if changed and not self.options.renew:
            name, found = next(iter(changed.items()))
            more = f", and {len(changed) - 1} more rows" if len(changed) > 1 else ""
            raise RunError(
                f"row {name} was begun with other settings ({'; '.join(found)}){more}",
                hint="--renew makes such rows anew and forgets the old ones; or choose another -o",
            )
        for row in chosen:
            if row.name in changed:
                self._forget(row)

    def _changes(self, row: RowPlan) -> list[str]:
        """Name what has changed, of the target or the row, besides the judges: a run can be judged again."""
        target = _record(_note(row.target.file(self.place)), TARGET_SCHEMA)
        record = _record(row.folder(self.place) / "row.json", ROW_SCHEMA)
        known = {"target": target["settings"]} if target else {}
        known |= {key: value for key, value in record["settings"].items() if key != "judging"} if record else {}
        return differences(known, {key: row.all_settings[key] for key in known})

    def _forget(self, row: RowPlan) -> None:
        self.say(f"{row.name}: its settings have changed, it is made anew")
        shutil.rmtree(row.folder(self.place), ignore_errors=True)

    # rows ---------------------------------------------------------------------------------------------

    def run(self, chosen: Sequence[RowPlan], progress: Progress) -> None:
        """Run rows in turn, or as many at once as the launcher takes, and keep the tables up to date."""
        with progress.track(f"benchmark {self.suite.name}", len(chosen)) as report:
            try:
                with closing(self._worked(chosen)) as rows:
                    for done, worked in enumerate(rows, start=1):
                        if worked:
                            self.conclude(finished=False)
                        report(done)
            except KeyboardInterrupt as stop:
                self.conclude(finished=False)
                raise Interrupted(
                    f"interrupted at {', '.join(sorted(self.busy))}; what is done is kept in {self.place}",
                    hint="the same command continues",
                ) from stop

    def _worked(self, chosen: Sequence[RowPlan]) -> Generator[bool, None, None]:
        """Do what each row lacks; give whether that was anything, row by row as they end."""
        titles = {row.name: f"[{index + 1}/{len(chosen)}] {row.name}" for index, row in enumerate(chosen)}
        if self.launcher.width == 1:
            yield from (self._run_row(row, titles[row.name]) for row in chosen)
            return
        with ThreadPoolExecutor(self.launcher.width) as pool:
            waiting = [pool.submit(self._run_row, row, titles[row.name]) for row in chosen]
            try:
                yield from (row.result() for row in as_completed(waiting))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.launcher.stop()
                raise

    def _run_row(self, row: RowPlan, title: str) -> bool:
        """Do what a row lacks; return whether there was anything to do."""
        record = self._started(row)
        if self._is_finished(record, row):
            self.say(f"{title}: is there already")
            return False
        self.busy.add(row.name)
        record |= {"status": "begun", "error": None}
        self._write(row, record)
        outcome = self._train(row.target, title) or self._attack(row, record, title)
        record |= {
            "status": "finished" if outcome.error is None else "failed", "error": outcome.error,
            "exit_code": outcome.code,
            "seconds": round(record["seconds"] + outcome.seconds, 2),
        }  # fmt: skip
        self._write(row, record)
        self.busy.discard(row.name)
        self.say(f"{title}: {outcome.error or f'finished in {outcome.seconds:.0f} s'}")
        return True

    def _is_finished(self, record: Mapping[str, Any], row: RowPlan) -> bool:
        there = (row.folder(self.place) / RUN / "report.json").exists()
        return there and record.get("status") == "finished" and record["settings"]["judging"] == row.judging

    def _started(self, row: RowPlan) -> dict[str, Any]:
        """Return what is known of a row, or the record of a new one."""
        known = _record(row.folder(self.place) / "row.json", ROW_SCHEMA)
        new = {"schema": ROW_SCHEMA, "name": row.name, "settings": row.all_settings, "seconds": 0.0}
        return known or new

    def _write(self, row: RowPlan, record: dict[str, Any]) -> None:
        write_json(row.folder(self.place) / "row.json", record)

    def _attack(self, row: RowPlan, record: dict[str, Any], title: str) -> Outcome:
        """Attack or go on, then judge again if the suite asks for other judges than the run did."""
        run, machine = row.folder(self.place) / RUN, self.options.machine
        outcome = Outcome(code=0, seconds=0.0, error=None)
        if not _is_complete(run, row):
            begun = (run / "run.json").exists()
            self.say(f"{title}: {'goes on' if begun else 'attacking'}")
            if not begun:
                shutil.rmtree(run, ignore_errors=True)
                self._remember(row, record, row.judging)
            arguments = resume_arguments(row, self.place) if begun else attack_arguments(row, self.place, machine)
            outcome = _within_budget(self._call(row, arguments), row)
        if outcome.error is None and record["settings"]["judging"] != row.judging:
            self.say(f"{title}: judging again")
            judged = self._call(row, evaluate_arguments(row, self.place, machine))
            outcome = Outcome(code=judged.code, seconds=outcome.seconds + judged.seconds, error=judged.error)
            if judged.error is None:
                self._remember(row, record, row.judging)
        return outcome

    def _remember(self, row: RowPlan, record: dict[str, Any], judging: Settings) -> None:
        """Note how the row's run is judged."""
        record["settings"] = {**record["settings"], "judging": judging}
        self._write(row, record)

    def _call(self, row: RowPlan, arguments: Sequence[str]) -> Outcome:
        folder, target = row.folder(self.place), row.target
        return self.launcher.call(
            Job(
                arguments=arguments, place=self.place, log=folder / "log.txt", makes=folder / RUN, target=target.name,
                bundle=target.file(self.place),
            )
        )  # fmt: skip

    # targets ------------------------------------------------------------------------------------------

    def _train(self, target: TargetPlan, title: str) -> Outcome | None:
        """Train a target unless it is there, also by another row; return how that failed, if it did."""
        with self.locks[target.name]:
            return self._trained(target, title)

    def _trained(self, target: TargetPlan, title: str) -> Outcome | None:
        file = target.file(self.place)
        note = _note(file)
        record = _record(note, TARGET_SCHEMA)
        if file.exists() and record is not None and record["settings"] == target.settings:
            return None
        file.unlink(missing_ok=True)
        write_json(note, {"schema": TARGET_SCHEMA, "name": target.name, "settings": target.settings})
        self.say(f"{title}: training the target")
        arguments = train_arguments(target, self.place, self.options.machine)
        log = file.with_suffix(".log")
        job = Job(arguments=arguments, place=self.place, log=log, makes=file, target=target.name)
        outcome = self.launcher.call(job)
        if outcome.error is None:
            return None
        return Outcome(code=outcome.code, seconds=0.0, error=f"the target was not trained: {outcome.error}")

    # tables -------------------------------------------------------------------------------------------

    def conclude(self, *, finished: bool) -> dict[str, Any]:
        """Write the tables of all rows, run now or earlier, and at the end the page; return their document."""
        document = collect(self.suite, self.path, self.place, self.rows, self.options.only, self.options.machine)
        write_pages(self.place, document, self.options.page if finished else None)
        return document


def _is_complete(run: Path, row: RowPlan) -> bool:
    """Tell whether a run has all that its row asks for: one with a budget ends where that is spent."""
    return _status(run) in ("finished", *(["budget"] if row.budget is not None else []))


def _within_budget(outcome: Outcome, row: RowPlan) -> Outcome:
    """Take the end of a budget for what it is in a row that has one."""
    spent = row.budget is not None and outcome.code == BudgetExceeded.exit_code
    return Outcome(code=0, seconds=outcome.seconds, error=None) if spent else outcome


def _note(bundle: Path) -> Path:
    """Return where the settings of a target are kept."""
    return bundle.with_suffix(".json")


def _record(path: Path, schema: str) -> dict[str, Any] | None:
    """Return what an earlier call noted, None when there was none.

    Raises: RunError when it is damaged.
    """
    if not path.exists():
        return None
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != schema:
        raise RunError(f"{path} is not of schema {schema}", hint="choose another -o")
    return record


def _status(run: Path) -> str | None:
    """Return the status of a run, None when it is not there or cannot be read: then `mi resume` says why."""
    try:
        document = read_json(run / "run.json")
    except MiError:
        return None
    return document.get("status") if isinstance(document, dict) else None
