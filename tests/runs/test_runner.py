"""Runs that end well, badly, early, and that go on later."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from micore import models, runs, threat
from micore.artifacts import PluginUse
from micore.contracts import Snapshot
from micore.data import DataRequest
from micore.errors import (
    AccessDenied,
    BudgetExceeded,
    CaseFailed,
    Interrupted,
    ModelError,
    RunError,
    StorageError,
    UsageError,
)
from micore.hookspecs import hookimpl
from micore.runs import Run, problem
from micore.runs import runner as module
from micore.runs import session as session_module
from micore.runtime import Progress, Runtime
from micore.testing.toys import ToyModality
from micore.threat import Access, Budget, Ledger
from tests import toys
from tests.toys import LabelAttack, ScriptedAttack

ALL = [f"class-{label}" for label in range(4)]
CASE_COST = 4  # two steps of two restarts
PREPARE_COST = 5


def statuses(run: Run) -> dict[str, str]:
    return {row["id"]: row["status"] for row in Run.open(run.directory).manifest["cases"]}


def recovered(run: Run) -> dict[str, tuple]:
    """Return all that was recovered, to compare bit for bit."""
    return {
        item.case.id: (item.samples.tolist(), item.scores.tolist(), dict(item.history), item.complete)
        for item in Run.open(run.directory).reconstructions(ToyModality())
    }


def outcome(run: Run) -> dict:
    """Return all that a run found, without times and costs."""
    controls = {name: [item.samples.tolist() for item in items] for name, items in run.controls(ToyModality()).items()}
    return {
        "statuses": statuses(run), "recovered": recovered(run), "controls": controls,
        "measurements": run.measurements(), "status": Run.open(run.directory).manifest["status"],
        "previews": sorted(path.name for path in (run.directory / "samples").iterdir()),
    }  # fmt: skip


@pytest.fixture
def real_report():
    """Asked for by tests that want the report and versions of a real run; the others are quicker without."""


@pytest.fixture(autouse=True)
def _light(monkeypatch, request):
    if "real_report" not in request.fixturenames:
        monkeypatch.setattr(module, "write_report", lambda *_: None)
        monkeypatch.setattr(session_module, "versions", lambda *_: {})


@pytest.fixture
def seen(monkeypatch) -> Counter:
    """Count the rows that really pass the target's network, forward and backward."""
    counter: Counter = Counter()
    restore = models.restore_network

    def forward(_module, _inputs, output):
        counter["queries"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda gradient: counter.update(gradients=len(gradient)))

    def counting(*arguments):
        network, defenses = restore(*arguments)
        network.register_forward_hook(forward)
        return network, defenses

    monkeypatch.setattr(models, "restore_network", counting)
    return counter


def interrupt_at(monkeypatch, *case_ids, error: BaseException | None = None, method="before_case", kind=ScriptedAttack):
    """Make the attack raise at these cases, once each; return the cases that it came to."""
    left, reached = set(case_ids), []

    def before(self, case):
        reached.append(case.id)
        if case.id in left:
            left.discard(case.id)
            raise error or KeyboardInterrupt

    monkeypatch.setattr(kind, method, before)
    return reached


def fail_always(monkeypatch, *case_ids, error: Exception):
    def before(self, case):
        if case.id in case_ids:
            raise error

    monkeypatch.setattr(ScriptedAttack, "before_case", before)


# a run that ends well -----------------------------------------------------------------------------


def test_a_whole_run(launch, shared_target, real_report):
    run = launch()
    names = {path.name for path in run.directory.iterdir()}
    assert names == {
        "run.json", "reconstructions.safetensors", "control-prior-samples.safetensors", "samples",
        "measurements.json", "events.jsonl", "report.html", "report.json", "report.md",
    }  # fmt: skip
    assert problem(run) is None
    assert statuses(run) == dict.fromkeys(ALL, "done")
    opened = Run.open(run.directory)
    manifest = opened.manifest
    assert manifest == run.manifest
    assert manifest["status"] == "finished"
    assert manifest["access"] == {"granted": "white-box", "used": "white-box"}
    assert manifest["request"]["model"] == str(shared_target)
    assert manifest["request"]["data"] == {"uri": "grids", "options": toys.SMALL}
    assert manifest["overlap"] == {"equal": 0, "public": 96}
    assert manifest["ledger"] == {
        "preparation": {"queries": 5, "gradients": 0}, "shared": {"queries": 5, "gradients": 0},
        "cases": {"queries": 16, "gradients": 16}, "total": {"queries": 21, "gradients": 16},
    }  # fmt: skip
    assert manifest["queries_by_access"] == {"white-box": 21}
    assert {tuple(row["spending"].values()) for row in manifest["cases"]} == {(CASE_COST, CASE_COST)}
    assert manifest["preparation"]["cached"] is False
    assert all(
        manifest[key] for key in ("finished", "created", "hardware", "versions", "seed", "data") if key != "seed"
    )
    assert manifest["notes"] == []
    subjects = {item.subject for item in opened.measurements()}
    assert subjects == {"attack", "prior-samples", "wrong-label", "holdout"}
    events = [json.loads(line)["event"] for line in (run.directory / "events.jsonl").read_text().splitlines()]
    assert events == ["preparing", "case", "case", "case", "case", "evaluator"]
    assert len(list((run.directory / "samples").iterdir())) == 4


def test_the_same_seed_gives_the_same_run(launch):
    one, same, other = launch("one"), launch("same"), launch("other", seed=1)
    assert outcome(one) == outcome(same)
    assert recovered(one) != recovered(other)


@pytest.mark.parametrize(("batch", "tile"), [(1, 4), (2, 4), (3, 4), (16, 4)])
def test_the_number_of_cases_between_checkpoints_changes_nothing(launch, batch, tile):
    expected = launch("expected", batch=4, tile=tile)
    run = launch(batch=batch, tile=tile)
    assert outcome(run) == outcome(expected)
    assert run.manifest["ledger"] == expected.manifest["ledger"]
    assert [row["spending"] for row in run.manifest["cases"]] == [row["spending"] for row in expected.manifest["cases"]]


def test_chosen_cases_are_as_they_are_among_all(launch):
    some, whole = launch("some", choice="2,0"), launch("whole")
    assert list(statuses(some)) == ["class-2", "class-0"]
    assert recovered(some) == {name: recovered(whole)[name] for name in ("class-0", "class-2")}


def test_controls_are_drawn_from_the_prior(launch):
    run = launch()
    (controls,) = run.controls(ToyModality()).values()
    assert [item.case.id for item in controls] == ALL
    assert {len(item.samples) for item in controls} == {2}
    assert not torch.equal(controls[0].samples, controls[1].samples)


def test_no_controls_without_a_prior_or_for_a_control(launch, monkeypatch):
    from micore.runs.session import Session

    assert launch("label", attack="by-label").controls(ToyModality()) == {}
    spec = Session.spec.fget
    monkeypatch.setattr(Session, "spec", property(lambda self: replace(spec(self), control=True)))
    assert launch("control").controls(ToyModality()) == {}


def test_label_only_runs_say_so(launch):
    run = launch(attack="by-label", access=Access.SCORES)
    assert run.manifest["access"] == {"granted": "scores", "used": "label"}
    assert run.manifest["ledger"]["total"] == {"queries": 8, "gradients": 0}
    assert run.manifest["queries_by_access"] == {"label": 8}


def test_the_default_directory(plugins, shared_target, tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.attack(plugins, toys.toy_request(shared_target, attack="by-label", choice="0"))
    assert run.directory.parent == Path("runs")
    assert run.directory.name.endswith("-by-label-toy-target")


def test_a_relative_target_is_found_from_anywhere(launch, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle.save(Path("target.safetensors"))
    run = launch(model="target.safetensors", attack="by-label", choice="0")
    monkeypatch.chdir("/")
    assert run.manifest["request"]["model"] == str(tmp_path / "target.safetensors")
    run.manifest["status"] = "interrupted"
    run.save()
    assert problem(runs.resume(toys.registry(), run.directory)) is None


def test_a_target_may_come_from_a_source(launch):
    run = launch(model="mem:3", attack="by-label", choice="0")
    assert run.manifest["target"]["uri"] == run.manifest["request"]["model"] == "mem:3"
    assert run.manifest["target"]["card"]["seed"] == 3


def test_progress_is_told(plugins, shared_target, tmp_path, home):
    told = []

    class Telling(Progress):
        def track(self, description, total):
            from contextlib import nullcontext

            told.append((description, total))
            return nullcontext(told.append)

    runs.attack(plugins, toys.toy_request(shared_target, batch=3, attack="by-label"), tmp_path / "run", Telling())
    assert told == [("attacking 4 cases", 4), 3, 4]


# refused before anything is written ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"access": Access.SCORES}, AccessDenied),
        ({"access": Access.LABEL}, AccessDenied),
        ({"model": "nowhere.safetensors"}, ModelError),
        ({"choice": "9"}, UsageError),
    ],
)
def test_a_request_that_cannot_work_writes_nothing(launch, tmp_path, changes, error):
    with pytest.raises(error):
        launch(**changes)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_directory_with_something_in_it_is_refused(launch, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not an empty directory"):
        launch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]
    launch("other")
    with pytest.raises(RunError, match="holds a run already"):
        launch("other")


# cases that fail ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "error"), [(1, ValueError("no good")), (2, CaseFailed("no good")), (16, ValueError("no good"))]
)
def test_a_case_that_fails_is_a_row_and_the_others_are_as_ever(launch, monkeypatch, seen, batch, error):
    expected = recovered(launch("expected", tile=1))
    fail_always(monkeypatch, "class-1", error=error)
    seen.clear()
    run = launch(batch=batch, tile=1)
    assert statuses(run) == {**dict.fromkeys(ALL, "done"), "class-1": "failed"}
    assert recovered(run) == {name: found for name, found in expected.items() if name != "class-1"}
    (row,) = [row for row in run.manifest["cases"] if row["status"] == "failed"]
    assert row["error"] == f"{type(error).__name__}: no good"
    found = problem(run)
    assert isinstance(found, CaseFailed)
    assert "1 of 4 cases failed" in str(found)
    assert "no good" in str(found)
    assert run.manifest["status"] == "finished"
    total = run.manifest["ledger"]["total"]
    assert total == {"queries": seen["queries"] + PREPARE_COST, "gradients": seen["gradients"]}


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_an_attack_may_name_the_cases_that_failed_at_its_end(launch, monkeypatch, batch):
    expected = recovered(launch("expected", batch=batch, tile=1))
    original, asked = ScriptedAttack.run, []

    def naming(self, target, cases, prepared, runtime):
        asked.append([case.id for case in cases])
        yield from (item for item in original(self, target, cases, prepared, runtime) if item.case.id != "class-1")
        if any(case.id == "class-1" for case in cases):
            raise CaseFailed("some losses are not finite", reasons={"class-1": "the loss is not finite at step 2"})

    monkeypatch.setattr(ScriptedAttack, "run", naming)
    run = launch(batch=batch, tile=1)
    assert sum("class-1" in cases for cases in asked) == 1, "it is not attacked again"
    (row,) = [row for row in run.manifest["cases"] if row["status"] == "failed"]
    assert (row["id"], row["error"]) == ("class-1", "the loss is not finite at step 2")
    assert recovered(run) == {name: found for name, found in expected.items() if name != "class-1"}


def test_cases_that_are_neither_given_back_nor_named_are_attacked_alone(launch, monkeypatch):
    original, asked = ScriptedAttack.run, []

    def naming(self, target, cases, prepared, runtime):
        asked.append([case.id for case in cases])
        if len(cases) > 1:
            yield next(iter(original(self, target, cases[:1], prepared, runtime)))
            raise CaseFailed("no good", reasons={"class-1": "not finite", "class-0": "was given back", "class-9": "?"})
        yield from original(self, target, cases, prepared, runtime)

    monkeypatch.setattr(ScriptedAttack, "run", naming)
    run = launch(tile=1)
    assert asked == [ALL, ["class-2"], ["class-3"]]
    assert statuses(run) == {**dict.fromkeys(ALL, "done"), "class-1": "failed"}


def test_failures_that_no_case_causes_fail_all_and_judge_nothing(launch, monkeypatch):
    def broken(self, cases):
        raise RuntimeError("broken")

    monkeypatch.setattr(ScriptedAttack, "before_batch", broken)
    run = launch()
    assert set(statuses(run).values()) == {"failed"}
    assert run.measurements() == []
    assert "4 of 4" in str(problem(run))


def test_failed_cases_are_tried_again_only_when_asked(launch, monkeypatch, plugins):
    expected = launch("expected")
    with monkeypatch.context() as patch:
        fail_always(patch, "class-1", "class-2", error=ValueError("once"))
        run = launch(batch=1)
    still = runs.resume(plugins, run.directory)
    assert isinstance(problem(still), CaseFailed)
    assert Counter(statuses(run).values()) == {"done": 2, "failed": 2}
    reached = interrupt_at(monkeypatch)
    again = runs.resume(plugins, run.directory, retry_failed=True)
    assert reached == ["class-1", "class-2"]
    assert problem(again) is None
    assert outcome(again) == outcome(expected)
    spent = again.manifest["ledger"]["cases"]["queries"]
    assert spent == 6 * CASE_COST, "both attempts were paid for"


@pytest.mark.parametrize("batch", [1, 16])
def test_an_attack_that_gives_nothing_for_a_case(launch, monkeypatch, batch):
    original = ScriptedAttack.run

    def forgetful(self, *arguments):
        return (item for item in original(self, *arguments) if item.case.id != "class-2")

    monkeypatch.setattr(ScriptedAttack, "run", forgetful)
    run = launch(batch=batch)
    assert statuses(run) == {**dict.fromkeys(ALL, "done"), "class-2": "failed"}
    assert "gave nothing back" in str(problem(run))


@pytest.mark.parametrize("wrong", ["twice", "unasked"])
def test_an_attack_that_gives_what_was_not_asked_for(launch, monkeypatch, wrong):
    original = ScriptedAttack.run

    def confused(self, *arguments):
        for item in original(self, *arguments):
            if item.case.id != "class-1":
                yield item
            elif wrong == "unasked":
                yield replace(item, case=replace(item.case, id="class-7"))
            else:
                yield item
                yield item

    monkeypatch.setattr(ScriptedAttack, "run", confused)
    run = launch()
    if wrong == "unasked":
        assert statuses(run) == {**dict.fromkeys(ALL, "done"), "class-1": "failed"}
        assert "gave back 'class-7' twice, or without being asked" in str(problem(run))
    else:
        assert statuses(run) == dict.fromkeys(ALL, "done")


def test_an_error_of_micore_itself_stops_the_run(launch, monkeypatch, plugins, tmp_path, seen):
    interrupt_at(monkeypatch, "class-2", error=AccessDenied("too much"))
    with pytest.raises(AccessDenied, match="too much"):
        launch(tile=1)
    run = Run.open(tmp_path / "run")
    assert (run.manifest["status"], run.manifest["error"]) == ("failed", "too much")
    assert {name for name, row in run.rows().items() if row["status"] == "done"} == {"class-0", "class-1"}
    again = runs.resume(plugins, run.directory)
    assert problem(again) is None
    assert again.manifest["error"] is None
    assert again.manifest["ledger"]["total"] == dict(seen)


def test_a_bug_in_the_preparation_is_told_and_the_status_with_it(launch, monkeypatch, tmp_path, plugins):
    def broken(self, step):
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedAttack, "before_prepare_step", broken)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            launch()
    run = Run.open(tmp_path / "run")
    assert (run.manifest["status"], run.manifest["error"]) == ("failed", "ZeroDivisionError: a bug")
    assert problem(runs.resume(plugins, run.directory)) is None


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(launch, monkeypatch, tmp_path, plugins):
    expected = launch("expected")
    original = Run.write_case

    def full(self, row, *arguments):
        if row["id"] == "class-2":
            raise StorageError("no space")
        original(self, row, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_case", full)
        with pytest.raises(StorageError, match="no space"):
            launch()
    assert Run.open(tmp_path / "run").manifest["status"] == "failed"
    assert outcome(runs.resume(plugins, tmp_path / "run")) == outcome(expected)


# memory -------------------------------------------------------------------------------------------


def needs_memory(monkeypatch, largest: int, *, done_first: int = 0):
    """Let an attack run out of memory above a tile, after it gave back some cases; return the tiles it tried."""
    original, tried = ScriptedAttack.run, []

    def run(self, target, cases, prepared, runtime):
        tried.append((runtime.tile, [case.id for case in cases]))
        found = original(self, target, cases, prepared, runtime)
        if runtime.tile > largest:
            yield from (next(found) for _ in range(min(done_first, len(cases))))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        yield from found

    monkeypatch.setattr(ScriptedAttack, "run", run)
    return tried


def tile_events(run: Run) -> list[tuple[int, int]]:
    lines = map(json.loads, (run.directory / "events.jsonl").read_text().splitlines())
    return [(line["before"], line["rows"]) for line in lines if line["event"] == "tile"]


def test_a_batch_that_does_not_fit_goes_on_with_smaller_tiles(launch, monkeypatch):
    expected = launch("expected", tile=2)
    tried = needs_memory(monkeypatch, 3)
    run = launch(tile=8, batch=2)
    assert tried == [(8, ALL[:2]), (4, ALL[:2]), (2, ALL[:2]), (2, ALL[2:])], "what did not fit once is not tried again"
    assert tile_events(run) == [(8, 4), (4, 2)]
    assert run.manifest["hardware"]["tile"] == 2
    assert run.manifest["request"]["tile"] == 8
    assert run.manifest["notes"] == []
    assert recovered(run) == recovered(expected)
    assert problem(run) is None


def test_only_unfinished_cases_go_on_and_the_run_says_that_tiles_differ(launch, monkeypatch):
    tried = needs_memory(monkeypatch, 4, done_first=1)
    run = launch(tile=8)
    assert tried == [(8, ALL), (4, ALL[1:])]
    assert {name: row["tile"] for name, row in run.rows().items()} == {**dict.fromkeys(ALL, 4), "class-0": 8}
    assert run.manifest["hardware"]["tile"] == 4
    assert run.manifest["notes"] == ["memory ran out: later cases had 4 rows in a forward pass instead of 8"]
    assert statuses(run) == dict.fromkeys(ALL, "done")


def test_a_resumed_run_begins_with_the_tile_that_fitted(launch, monkeypatch, plugins, tmp_path):
    expected = launch("expected", tile=2)
    tried = needs_memory(monkeypatch, 2)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "class-2")
        with pytest.raises(Interrupted):
            launch(tile=8, batch=1)
    tried.clear()
    run = runs.resume(plugins, tmp_path / "run")
    assert tried == [(2, ["class-2"]), (2, ["class-3"])]
    assert recovered(run) == recovered(expected)


def test_what_does_not_fit_at_all_fails_with_its_reason(launch, monkeypatch):
    tried = needs_memory(monkeypatch, 0)
    run = launch(tile=4)
    assert [tile for tile, _ in tried] == [4, 2, 1, *[1] * 4]
    assert set(statuses(run).values()) == {"failed"}
    assert "out of memory even with one row in a forward pass" in str(problem(run))


def test_an_error_that_has_nothing_to_do_with_memory_halves_nothing(launch, monkeypatch):
    fail_always(monkeypatch, "class-1", error=RuntimeError("a matrix is singular"))
    run = launch(tile=4)
    assert tile_events(run) == []
    assert run.manifest["hardware"]["tile"] == 4


def test_the_manifest_says_how_much_memory_and_time_it_took(launch, plugins):
    run = launch()
    peak, timings = run.manifest["peak_memory_bytes"], run.manifest["timings"]
    assert peak["accelerator"] is None
    assert 50e6 < peak["process"] < 50e9
    assert set(timings) == {"attack_s", "evaluate_s"}
    assert sum(row["seconds"] for row in run.manifest["cases"]) <= timings["attack_s"] + 0.01
    run.manifest["peak_memory_bytes"]["process"] = int(1e15)
    run.save()
    again = runs.resume(plugins, run.directory)
    assert again.manifest["peak_memory_bytes"]["process"] == int(1e15), "the highest of all sittings"
    assert again.manifest["timings"]["attack_s"] >= timings["attack_s"]


def test_a_cached_preparation_keeps_its_own_peak(launch, monkeypatch):
    from micore.runs import preparation

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "peak_memory", lambda device: {"process": int(1e15), "accelerator": None})
        launch("one")
    other = launch("other")
    assert other.manifest["preparation"]["cached"] is True
    assert other.manifest["peak_memory_bytes"]["process"] == int(1e15)


# budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "limit"), [(1, 3), (16, 3), (2, PREPARE_COST), (1, 10), (16, 10), (1, 16), (2, 16), (16, 20)]
)
def test_a_spent_budget_keeps_what_was_done_and_a_bigger_one_finishes(launch, plugins, seen, batch, limit):
    expected = launch("expected", tile=1)
    seen.clear()
    run = launch(budget=Budget(queries=limit), batch=batch, tile=1, options={"steps": 2})
    if limit > 3:  # the preparation is cached: it is paid for, but not seen again
        seen["queries"] += PREPARE_COST
    assert isinstance(problem(run), BudgetExceeded)
    manifest = Run.open(run.directory).manifest
    assert manifest["status"] == "budget"
    assert manifest["ledger"]["total"]["queries"] == seen["queries"] <= limit
    assert manifest["ledger"]["total"]["gradients"] == seen["gradients"]
    found, done = recovered(run), [name for name, status in statuses(run).items() if status == "done"]
    assert set(found) == set(done)
    assert found == {name: recovered(expected)[name] for name in done}
    assert set(statuses(run).values()) <= {"done", "budget"}
    assert len(done) == ((limit - PREPARE_COST) // (CASE_COST * batch) * batch if limit > 3 else 0)
    going_on = runs.resume(plugins, run.directory, budget=Budget(queries=1000))
    if limit <= 3:
        seen["queries"] += PREPARE_COST
    assert problem(going_on) is None
    assert outcome(going_on) == outcome(expected)
    assert going_on.manifest["ledger"]["total"] == dict(seen)
    assert going_on.manifest["request"]["budget"]["queries"] == 1000
    assert going_on.manifest["notes"] == []


def test_a_budget_spent_in_the_preparation_is_accounted_for(launch, seen, real_report):
    finished = []

    class Observer:
        @hookimpl
        def mi_run_finished(self, run):
            finished.append(run.manifest["status"])

    run = launch(budget=Budget(queries=3), tile=1, registry=toys.registry(observer=Observer()))
    assert seen["queries"] == 3
    assert run.manifest["ledger"]["total"] == {"queries": 3, "gradients": 0}
    assert run.manifest["ledger"]["preparation"] == {"queries": 3, "gradients": 0}
    assert set(statuses(run).values()) == {"budget"}
    assert "3 of 3 are spent" in run.manifest["notes"][0]
    assert finished == ["budget"]
    assert (run.directory / "report.html").exists()


def test_a_budget_is_for_the_whole_run_not_for_each_sitting(launch, plugins):
    run = launch(budget=Budget(queries=PREPARE_COST + 2 * CASE_COST), batch=1, tile=1)
    again = runs.resume(plugins, run.directory)
    assert isinstance(problem(again), BudgetExceeded)
    assert again.manifest["ledger"] == run.manifest["ledger"]
    assert again.manifest["access"]["used"] == "white-box"


def test_a_time_budget(launch, plugins, monkeypatch):
    clock, real = [0.0], time.monotonic
    monkeypatch.setattr(threat, "time", SimpleNamespace(monotonic=lambda: real() + clock[0]))

    def slow(self, case):
        clock[0] += 1000

    monkeypatch.setattr(ScriptedAttack, "before_case", slow)
    run = launch(budget=Budget(seconds=1500), batch=1)
    assert isinstance(problem(run), BudgetExceeded)
    assert Counter(statuses(run).values()) == {"done": 2, "budget": 2}
    clock[0] = 0.0
    assert problem(runs.resume(plugins, run.directory)) is None, "each sitting has the time anew"


@pytest.fixture
def keeping(monkeypatch):
    """Make the label attack give back what it has when the budget ends."""

    def run(self, target, cases, prepared, runtime):
        for case in cases:
            samples = runtime.rng("start", case.id).uniform((3, *target.input_spec.shape))
            asked = 0
            with target.ledger.owned_by([case.id]):
                try:
                    for asked in range(3):
                        target.labels(samples[asked : asked + 1])
                    asked = 3
                except BudgetExceeded:
                    if asked == 0:
                        raise
            yield toys.Reconstruction(
                case=case, samples=samples[:asked], scores=torch.zeros(asked), complete=asked == 3,
                snapshots=(Snapshot(queries=1, samples=samples[:1]),),
            )  # fmt: skip

    monkeypatch.setattr(LabelAttack, "run", run)


@pytest.mark.usefixtures("keeping")
def test_the_best_so_far_is_kept_until_there_is_better(launch, plugins, seen):
    whole = launch("whole", attack="by-label")
    seen.clear()
    run = launch(attack="by-label", budget=Budget(queries=5), batch=1)
    assert statuses(run) == {"class-0": "done", "class-1": "partial", "class-2": "budget", "class-3": "budget"}
    assert "2 of 4 cases have a reconstruction" in str(problem(run))
    assert run.manifest["ledger"]["total"]["queries"] == seen["queries"] == 5
    assert len(recovered(run)["class-1"][0]) == 2
    again = runs.resume(plugins, run.directory)
    assert statuses(again)["class-1"] == "partial", "a budget without room must not lose it"
    assert recovered(again) == recovered(run)
    assert again.manifest["ledger"]["total"]["queries"] == seen["queries"] == 5
    finished = runs.resume(plugins, run.directory, budget=Budget(queries=100))
    assert outcome(finished) == outcome(whole)
    assert finished.manifest["ledger"]["total"]["queries"] == seen["queries"] == 14


@pytest.mark.usefixtures("keeping")
def test_the_stands_of_a_case_count_what_earlier_sittings_spent_on_it(launch, plugins):
    run = launch(attack="by-label", budget=Budget(queries=5), batch=1)
    assert [run.rows()[f"class-{label}"]["snapshots"] for label in (0, 1)] == [[1], [1]]
    finished = runs.resume(plugins, run.directory, budget=Budget(queries=100))
    assert finished.rows()["class-1"]["spending"]["queries"] == 2 + 3
    assert [finished.rows()[f"class-{label}"]["snapshots"] for label in (0, 1, 2)] == [[1], [2 + 1], [1]]


# interruptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "stop"), [(1, "class-0"), (2, "class-1"), (2, "class-2"), (16, "class-2")])
def test_an_interrupted_run_goes_on(launch, plugins, monkeypatch, tmp_path, seen, batch, stop):
    expected = launch("expected", tile=1)
    seen.clear()
    reached = interrupt_at(monkeypatch, stop)
    with pytest.raises(Interrupted, match="what is done is kept") as caught:
        launch(batch=batch, tile=1)
    assert "mi resume" in caught.value.hint
    run = Run.open(tmp_path / "run")
    assert run.manifest["status"] == "interrupted"
    done = [name for name, row in run.rows().items() if row["status"] == "done"]
    assert done == ALL[: ALL.index(stop)]
    assert not list(run.directory.rglob("*.part"))
    reached.clear()
    going_on = runs.resume(plugins, run.directory)
    assert reached == ALL[ALL.index(stop) :]
    assert outcome(going_on) == outcome(expected)
    assert going_on.manifest["ledger"]["total"]["queries"] == seen["queries"] + PREPARE_COST
    assert going_on.manifest["ledger"]["total"]["gradients"] == seen["gradients"]
    assert going_on.manifest["queries_by_access"] == {"white-box": seen["queries"] + PREPARE_COST}
    assert going_on.manifest["access"]["used"] == "white-box"


def test_what_was_spent_for_no_case_in_particular_is_not_forgotten(launch, plugins, monkeypatch, tmp_path, seen):
    original, stops = LabelAttack.run, [True]

    def run(self, target, cases, prepared, runtime):
        target.labels(runtime.rng("shared").uniform((3, *target.input_spec.shape)))
        if cases[0].id == "class-2" and stops:
            stops.clear()
            raise KeyboardInterrupt
        yield from original(self, target, cases, prepared, runtime)

    monkeypatch.setattr(LabelAttack, "run", run)
    with pytest.raises(Interrupted):
        launch(attack="by-label", batch=2)
    assert seen["queries"] == 10
    going_on = runs.resume(plugins, tmp_path / "run")
    assert seen["queries"] == 17
    ledger = going_on.manifest["ledger"]
    assert (ledger["total"]["queries"], ledger["shared"]["queries"], ledger["cases"]["queries"]) == (17, 9, 8)
    assert going_on.manifest["queries_by_access"] == {"label": 17}


def test_an_interruption_while_cases_are_tried_one_by_one(launch, plugins, monkeypatch, tmp_path, seen):
    expected = launch("expected", tile=1)
    seen.clear()
    tries = Counter()

    def before(self, case):
        tries[case.id] += 1
        if case.id == "class-1" and tries[case.id] == 1:
            raise ValueError("breaks the batch")
        if case.id == "class-2" and tries[case.id] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ScriptedAttack, "before_case", before)
    with pytest.raises(Interrupted):
        launch(tile=1)
    again = runs.resume(plugins, tmp_path / "run")
    assert outcome(again) == outcome(expected)
    assert again.manifest["ledger"]["total"]["queries"] == seen["queries"] + PREPARE_COST


def test_an_interrupted_preparation_goes_on(launch, plugins, monkeypatch, tmp_path):
    def killing(self, step):
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedAttack, "before_prepare_step", killing)
        with pytest.raises(Interrupted):
            launch()
    assert Run.open(tmp_path / "run").manifest["status"] == "interrupted"
    assert outcome(runs.resume(plugins, tmp_path / "run")) == outcome(launch("expected"))


def test_an_interruption_while_judging_loses_nothing(launch, plugins, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(toys.MeanEvaluator, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            launch()
    reached = interrupt_at(monkeypatch)
    going_on = runs.resume(plugins, tmp_path / "run")
    assert reached == []
    assert outcome(going_on) == outcome(launch("expected"))


def test_a_finished_run_can_be_resumed_and_stays(launch, plugins):
    run = launch()
    before = outcome(run), run.manifest["ledger"], run.manifest["access"]
    again = runs.resume(plugins, run.directory)
    assert (outcome(again), again.manifest["ledger"], again.manifest["access"]) == before


# what may not be resumed --------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["reconstructions.safetensors", "run.json"])
def test_a_run_that_lost_files_is_not_resumed(launch, plugins, lost):
    run = launch()
    (run.directory / lost).unlink()
    with pytest.raises(RunError, match=r"has lost its files of class-0, class-1|is no run directory"):
        runs.resume(plugins, run.directory)


def test_a_run_whose_case_file_is_damaged_is_not_resumed(launch, plugins, monkeypatch, tmp_path):
    interrupt_at(monkeypatch, "class-2")
    with pytest.raises(Interrupted):
        launch()
    run = Run.open(tmp_path / "run")
    run.case_path("class-0").write_bytes(b"half")
    with pytest.raises(RunError, match="truncated"):
        runs.resume(plugins, run.directory)


def test_a_changed_target_is_refused(launch, plugins, bundle, tmp_path):
    path = tmp_path / "target.safetensors"
    bundle.save(path)
    run = launch(model=path, attack="by-label")
    before = run.directory.joinpath("run.json").read_bytes()
    toys.toy_bundle(plugins, seed=5).save(path)
    with pytest.raises(RunError, match="the target has changed") as caught:
        runs.resume(plugins, run.directory)
    assert "new run" in caught.value.hint
    path.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        runs.resume(plugins, run.directory)
    assert run.directory.joinpath("run.json").read_bytes() == before


def test_changed_data_are_refused(launch, plugins):
    run = launch(attack="by-label")
    run.manifest["request"]["data"]["options"]["seed"] = 4
    run.save()
    with pytest.raises(RunError, match="the data has changed"):
        runs.resume(plugins, run.directory)


# the cache, observers, ranks ----------------------------------------------------------------------


def test_a_cached_preparation_is_paid_for_again(launch):
    one, other = launch("one"), launch("other", options={"steps": 1})
    assert (one.manifest["preparation"]["cached"], other.manifest["preparation"]["cached"]) == (False, True)
    assert one.manifest["ledger"]["preparation"] == other.manifest["ledger"]["preparation"]
    assert one.manifest["preparation"]["key"] == other.manifest["preparation"]["key"]
    third = launch("third", options={"prepare_queries": 2})
    assert third.manifest["preparation"]["cached"] is False
    assert third.manifest["ledger"]["preparation"]["queries"] == 2


def test_observers_see_the_run_and_cannot_stop_it(launch, caplog):
    seen = []

    class Quiet:
        @hookimpl
        def mi_run_started(self, run):
            seen.append("started")

        @hookimpl
        def mi_case_done(self, case, reconstruction):
            seen.append(case.id)
            assert len(reconstruction.samples) == 2

        @hookimpl
        def mi_run_finished(self, run):
            seen.append(run.manifest["status"])

    class Loud:
        @hookimpl
        def mi_run_started(self, run):
            raise ValueError("loud")

        @hookimpl
        def mi_case_done(self, run, case, reconstruction):
            raise BudgetExceeded("loud")

        @hookimpl
        def mi_run_finished(self, run):
            raise RunError("loud")

    expected = launch("expected")
    run = launch(registry=toys.registry(quiet=Quiet(), loud=Loud()))
    assert seen == ["started", *ALL, "finished"]
    assert outcome(run) == outcome(expected)
    assert len([record for record in caplog.records if "loud" in record.message]) == 6


def test_several_processes_need_a_place(plugins, shared_target, home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    create = Runtime.create.__func__
    monkeypatch.setattr(Runtime, "create", classmethod(lambda *a, **k: replace(create(*a, **k), world=2)))
    with pytest.raises(UsageError, match="one place to write to"):
        runs.attack(plugins, toys.toy_request(shared_target))
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def two_ranks(monkeypatch, plugins, tmp_path):
    """Call something in two threads that believe to be ranks 0 and 1; return what both gave."""
    barrier, local = threading.Barrier(2, timeout=60), threading.local()
    create = Runtime.create.__func__
    monkeypatch.setattr(
        Runtime, "create", classmethod(lambda *a, **k: replace(create(*a, **k), world=2, rank=local.rank))
    )
    monkeypatch.setattr(Runtime, "barrier", lambda self: barrier.wait())

    def call(work):
        def as_rank(rank):
            local.rank = rank
            return work()

        with ThreadPoolExecutor(2) as pool:
            return [future.result() for future in [pool.submit(as_rank, rank) for rank in (0, 1)]]

    return call


def test_ranks_share_the_cases(launch, plugins, two_ranks, shared_target, tmp_path, monkeypatch):
    request = toys.toy_request(shared_target, choice="0,1,2", batch=1)
    rows = Run.rows

    def late(self):
        if threading.current_thread().name.endswith("_1"):
            time.sleep(0.3)  # whoever is late must not see what the other rank has done by then
        return rows(self)

    monkeypatch.setattr(Run, "rows", late)
    first, second = two_ranks(lambda: runs.attack(plugins, request, tmp_path / "both"))
    monkeypatch.undo()
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    alone = runs.attack(plugins, request, tmp_path / "alone")
    assert first.directory == second.directory
    assert outcome(first) == outcome(second) == outcome(alone)
    assert first.manifest["ledger"] == alone.manifest["ledger"]
    assert first.manifest["access"] == alone.manifest["access"]
    total = alone.manifest["ledger"]["total"]["queries"]
    assert first.manifest["queries_by_access"] == alone.manifest["queries_by_access"] == {"white-box": total}
    assert first.manifest["hardware"]["ranks"] == 2


def test_ranks_share_the_budget(plugins, two_ranks, shared_target, home, tmp_path):
    limit = PREPARE_COST + 2 * CASE_COST + 1
    request = toys.toy_request(shared_target, batch=1, tile=1, budget=Budget(queries=limit))
    run, _ = two_ranks(lambda: runs.attack(plugins, request, tmp_path / "both"))
    assert isinstance(problem(run), BudgetExceeded)
    assert Counter(statuses(run).values()) == {"done": 2, "budget": 2}
    assert run.manifest["ledger"]["total"]["queries"] <= limit


def test_only_the_first_rank_writes_that_the_run_was_interrupted(plugins, two_ranks, shared_target, home, tmp_path):
    class Stopping(Progress):
        def track(self, description, total):
            raise KeyboardInterrupt

    def work():
        with pytest.raises(Interrupted):
            runs.attack(plugins, toys.toy_request(shared_target), tmp_path / "both", Stopping())

    two_ranks(work)
    assert Run.open(tmp_path / "both").manifest["status"] == "interrupted"


def test_a_rank_whose_cached_preparation_is_too_dear_writes_nothing(
    plugins, shared_target, home, tmp_path, monkeypatch
):
    run = runs.attack(plugins, toys.toy_request(shared_target), tmp_path / "run")
    session = runs.open_session(plugins, toys.toy_request(shared_target, budget=Budget(queries=2)))
    session = replace(session, runtime=replace(session.runtime, rank=1, world=2))
    monkeypatch.setattr(Runtime, "barrier", lambda self: None)
    before = (run.directory / "run.json").read_bytes()
    module._execute(session, run)
    assert (run.directory / "run.json").read_bytes() == before


def test_the_ledger_of_a_session_begins_empty(plugins, shared_target):
    session = runs.open_session(plugins, toys.toy_request(shared_target))
    assert session.target.ledger.to_dict() == Ledger().to_dict()
    assert session.request.data == DataRequest(uri="grids", options=toys.SMALL)
    assert session.request.attack == PluginUse(name="scripted")
