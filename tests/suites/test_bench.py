"""Suites are run row by row: kept, gone on with, refused, or failed with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from micore.errors import Interrupted, RunError, UsageError
from micore.suites import Machine, Precision
from tests.suites.conftest import Pretended

Start = Callable[..., dict[str, Any]]
ROWS = ["grids/none/scripted/0", "grids/none/scripted/1", "grids/none/by-label/0"]


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["status"] for row in document["rows"]}


def change(suite: Path, old: str, new: str) -> None:
    text = suite.read_text()
    assert old in text
    suite.write_text(text.replace(old, new))


def test_targets_are_trained_once_and_every_row_is_attacked(run_suite: Start, pretended: Pretended) -> None:
    said: list[str] = []
    document = run_suite(
        said=said, machine=Machine(device="cpu", data_root="/data", tile=8), arithmetic=Precision(name="bf16")
    )
    assert statuses(document) == dict.fromkeys(ROWS, "finished")
    assert pretended.names == ["train", "attack", "train", "attack", "attack"]
    train, attack = pretended.calls[:2]
    bundle = train[-1]
    assert train == [
        "train", "--data", "grids", "-D", "size=4", "--model", "conv", "--precision", "bf16", "--seed", "0",
        "--data-root", "/data", "--device", "cpu", "-o", bundle,
    ]  # fmt: skip
    assert attack == [
        "attack", "--plugin", "scripted", "--model", bundle, "--preset", "default", "--data", "grids", "-D", "size=4",
        "--judges", "1", "--precision", "bf16", "--seed", "0", "--tile", "8", "--data-root", "/data", "--device", "cpu",
        "-o", attack[-1],
    ]  # fmt: skip
    assert said[:3] == [
        f"[1/3] {ROWS[0]}: training the target", f"[1/3] {ROWS[0]}: attacking", f"[1/3] {ROWS[0]}: finished in 2 s",
    ]  # fmt: skip


def test_what_is_finished_is_kept(run_suite: Start, pretended: Pretended) -> None:
    first = run_suite()
    pretended.calls.clear()
    said: list[str] = []
    assert run_suite(said=said) == first
    assert pretended.calls == []
    assert said[0] == f"[1/3] {ROWS[0]}: is there already"


def test_only_some_rows(run_suite: Start, pretended: Pretended) -> None:
    document = run_suite(only=["by-label"])
    assert statuses(document) == {ROWS[0]: "not run", ROWS[1]: "not run", ROWS[2]: "finished"}
    assert document["asked"] == [ROWS[2]]
    assert pretended.names == ["train", "attack"]
    with pytest.raises(UsageError, match="no row fits"):
        run_suite(only=["plmi"])


def test_a_row_that_fails_does_not_stop_the_others_and_is_tried_again(run_suite: Start, pretended: Pretended) -> None:
    pretended.errors = {"--plugin scripted": "the process was killed by SIGKILL"}
    document = run_suite()
    assert statuses(document) == {ROWS[0]: "failed", ROWS[1]: "failed", ROWS[2]: "finished"}
    assert document["rows"][0]["error"] == "the process was killed by SIGKILL"
    assert document["rows"][0]["figures"] == []
    pretended.errors, pretended.calls = {}, []
    assert set(statuses(run_suite()).values()) == {"finished"}
    assert pretended.names == ["resume", "resume"], "what was begun goes on"


def test_a_target_that_cannot_be_trained_fails_its_rows(run_suite: Start, pretended: Pretended) -> None:
    pretended.errors = {"train --data grids -D size=4 --model conv --precision fp32 --seed 0": "no such data"}
    document = run_suite()
    assert statuses(document) == {ROWS[0]: "failed", ROWS[1]: "finished", ROWS[2]: "failed"}
    assert document["rows"][0]["error"] == "the target was not trained: no such data"
    pretended.errors = {}
    assert set(statuses(run_suite()).values()) == {"finished"}


def test_an_interruption_leaves_what_is_done(run_suite: Start, pretended: Pretended, tmp_path: Path) -> None:
    pretended.raises = {"attack --plugin by-label": KeyboardInterrupt()}
    with pytest.raises(Interrupted, match=f"interrupted at {ROWS[2]}") as caught:
        run_suite()
    assert caught.value.hint == "the same command continues"
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert statuses(document) == {ROWS[0]: "finished", ROWS[1]: "finished", ROWS[2]: "begun"}
    pretended.raises, pretended.calls = {}, []
    assert set(statuses(run_suite()).values()) == {"finished"}
    assert pretended.names == ["resume"]


def test_a_row_killed_before_its_run_began_is_attacked_anew(
    run_suite: Start, pretended: Pretended, tmp_path: Path
) -> None:
    run_suite()
    (run,) = (tmp_path / "out" / "rows").glob("grids-none-by-label-0*/run")
    (run / "run.json").unlink()
    (run / "report.json").unlink()
    pretended.calls.clear()
    assert set(statuses(run_suite()).values()) == {"finished"}
    assert pretended.names == ["attack"]


# changes of the suite -----------------------------------------------------------------------------


def test_a_changed_row_is_refused_before_anything_runs(run_suite: Start, pretended: Pretended, suite: Path) -> None:
    run_suite()
    pretended.calls.clear()
    change(suite, 'plugin = "scripted"', 'plugin = "scripted"\noptions = { steps = 3 }')
    with pytest.raises(RunError) as caught:
        run_suite()
    assert caught.value.message == (
        f"row {ROWS[0]} was begun with other settings (attack.options.steps None -> 3), and 1 more rows"
    )
    assert "--renew" in (caught.value.hint or "")
    assert pretended.calls == []
    assert set(statuses(run_suite(only=["by-label"])).values()) == {"finished", "other settings"}


def test_a_changed_row_is_made_anew_when_asked_for(run_suite: Start, pretended: Pretended, suite: Path) -> None:
    run_suite()
    pretended.calls.clear()
    change(suite, 'plugin = "scripted"', 'plugin = "scripted"\noptions = { steps = 3 }')
    said: list[str] = []
    document = run_suite(renew=True, said=said)
    assert set(statuses(document).values()) == {"finished"}
    assert pretended.names == ["attack", "attack"], "targets and other rows are kept"
    assert said[0] == f"{ROWS[0]}: its settings have changed, it is made anew"
    assert "steps=3" in pretended.calls[0]


def test_a_changed_target_takes_its_rows_with_it(run_suite: Start, pretended: Pretended, suite: Path) -> None:
    run_suite(only=["by-label"])
    change(suite, 'model = "conv"', 'model = "mlp"')
    with pytest.raises(RunError, match=r"target\.model 'conv' -> 'mlp'"):
        run_suite(only=["by-label"])
    with pytest.raises(RunError, match=r"target\.model"):
        run_suite(only=["grids/none/scripted/0"])
    pretended.calls.clear()
    run_suite(renew=True)
    assert pretended.names == ["train", "attack", "train", "attack", "attack"]


def test_other_judges_only_judge_again(run_suite: Start, pretended: Pretended, suite: Path) -> None:
    run_suite()
    pretended.calls.clear()
    change(suite, 'name = "toy"', 'name = "toy"\njudges = 2')
    assert set(statuses(run_suite()).values()) == {"finished"}
    assert pretended.names == ["evaluate"] * 3
    assert pretended.calls[0][2:] == ["--judges", "2", "--device", "auto"]
    pretended.calls.clear()
    run_suite()
    assert pretended.calls == []
    change(suite, 'plugin = "by-label"', 'plugin = "by-label"\nevaluators = ["judged", "mean"]')
    pretended.errors = {"evaluate": "no weights"}
    assert statuses(run_suite())[ROWS[2]] == "failed"
    pretended.errors = {}
    assert statuses(run_suite())[ROWS[2]] == "finished"
    assert pretended.calls[-1][2:8] == ["--judges", "2", "-e", "judged", "-e", "mean"]


def test_an_unfinished_row_is_finished_and_then_judged_as_asked(
    run_suite: Start, pretended: Pretended, suite: Path
) -> None:
    pretended.errors = {"--plugin by-label": "killed"}
    run_suite(only=["by-label"])
    change(suite, 'name = "toy"', 'name = "toy"\njudges = 2')
    pretended.errors, pretended.calls = {}, []
    assert statuses(run_suite(only=["by-label"]))[ROWS[2]] == "finished"
    assert pretended.names == ["resume", "evaluate"]


# places -------------------------------------------------------------------------------------------


def test_damaged_records_are_told(run_suite: Start, tmp_path: Path) -> None:
    run_suite()
    (record, *_) = sorted((tmp_path / "out" / "rows").glob("*/row.json"))
    record.write_text("{}")
    with pytest.raises(RunError, match=r"is not of schema micore\.bench-row/1"):
        run_suite()
    record.write_text("{")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        run_suite()


def test_a_damaged_run_is_a_failed_row(run_suite: Start, pretended: Pretended, tmp_path: Path) -> None:
    run_suite()
    (run,) = (tmp_path / "out" / "rows").glob("grids-none-by-label-0*/run")
    (run / "report.json").write_text("{")
    (run / "run.json").write_text("{")
    record = run.parent / "row.json"
    record.write_text(record.read_text().replace('"finished"', '"begun"'))
    pretended.errors = {"resume": "run.json cannot be read"}
    assert statuses(run_suite())[ROWS[2]] == "failed"


def test_two_at_once_are_refused(run_suite: Start, tmp_path: Path) -> None:
    from micore.suites.processes import only_one

    with only_one(tmp_path / "out"), pytest.raises(RunError, match="still at work in"):
        run_suite()
    run_suite()


def test_a_place_that_cannot_be_written(run_suite: Start, tmp_path: Path) -> None:
    from micore.errors import StorageError

    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="is not a directory"):
        run_suite()


def test_a_row_for_each_budget_ends_where_it_is_spent(run_suite: Start, pretended: Pretended, suite: Path) -> None:
    change(suite, 'plugin = "scripted"\n', 'plugin = "scripted"\nseeds = [0]\nbudget_queries = [50, 100]\ntop_k = 2\n')
    document = run_suite(only=["*queries"])
    names = [f"grids/none/scripted, {budget} queries/0" for budget in (50, 100)]
    assert [name for name, status in statuses(document).items() if status == "finished"] == names
    assert [call[call.index("--budget-queries") + 1] for call in pretended.calls[1:]] == ["50", "100"]
    assert all(call[call.index("--top-k") + 1] == "2" for call in pretended.calls[1:])
    pretended.calls.clear()
    run_suite(only=["*queries"])
    assert pretended.calls == []
