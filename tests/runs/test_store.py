"""A run directory is readable at any moment, and is no other."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from micore.contracts import Case, Interval, Measurement, Reconstruction, Snapshot
from micore.errors import RunError, StorageError
from micore.runs.store import Run
from micore.testing.toys import ToyModality

MODALITY = ToyModality()
MEASUREMENT = Measurement(
    name="acc", subject="attack", value=0.5, interval=Interval(low=0, high=1), n=2, clusters=2, unit="1",
    direction="up", evaluator="e@1", per_case={"a": 0.5}, notes=("n",),
)  # fmt: skip


def row(case_id: str, status: str = "done", **changes) -> dict:
    return {"id": case_id, "goal": "class", "label": 1, "status": status, "error": None, **changes}


def reconstruction(case_id: str, n: int = 2, *, latents: bool = False, **changes) -> Reconstruction:
    value = float(len(case_id))
    return Reconstruction(
        case=Case(id=case_id, goal="class", label=1), samples=torch.full((n, 1, 2, 2), value),
        scores=torch.arange(float(n)),
        latents=torch.ones(n, 3) if latents else None, history={"loss": [1.0, 0.5]}, **changes,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", {"cases": [], "notes": []})


def test_a_run_is_created_and_opened(tmp_path, run):
    assert run.manifest["status"] == "created"
    run.update(status="attacking", more=[1])
    opened = Run.open(tmp_path / "run")
    assert opened.manifest == run.manifest
    assert opened.manifest["more"] == [1]
    assert opened.id == "run"


def test_an_empty_directory_may_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", {}).manifest["status"] == "created"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Run.create(path, {}), "holds a run already"),
        (lambda path: (path.mkdir(), (path / "thesis.tex").write_text("x")), "not an empty directory"),
        (lambda path: path.write_text("x"), "not an empty directory"),
    ],
)
def test_nothing_is_overwritten(tmp_path, make, message):
    make(tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=message) as caught:
        Run.create(tmp_path / "run", {})
    assert "-o" in caught.value.hint
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no run directory"),
        ("{", "cannot be read as JSON"),
        ("[]", "is not of schema"),
        ('{"schema": "micore.run/99"}', "is not of schema"),
    ],
)
def test_what_is_no_run_is_not_opened(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        Run.open(tmp_path)


def test_events_are_lines(run):
    run.event("case", id="a", name="x")
    run.event("end", path=Path("p"))
    assert [event["event"] for event in run.events()] == ["case", "end"]
    assert (run.events()[0]["name"], run.events()[1]["path"]) == ("x", "p")


def test_an_event_that_cannot_be_written_is_an_error(run, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match=r"events\.jsonl: No space left"):
        run.event("case")


def test_leftovers_of_a_killed_process_are_removed(run):
    (run.directory / "cases").mkdir()
    for path in (run.directory / ".run.json.77.part", run.directory / "cases" / ".a.safetensors.77.part"):
        path.write_text("half")
    run.mend()
    assert [path.name for path in run.directory.iterdir()] in (["run.json", "cases"], ["cases", "run.json"])
    assert list((run.directory / "cases").iterdir()) == []


def test_a_case_that_a_killed_process_did_not_note_is_noted_once(run):
    run.write_case(row("a"), reconstruction("a"), MODALITY)
    run.note_case(row("a"))
    run.write_case(row("b", "failed", error="oops"), None, MODALITY)
    run.mend()
    run.mend()
    assert [(event["id"], event["error"]) for event in run.events()] == [("a", None), ("b", "oops")]


def test_cases_are_kept_before_and_after_collecting(run):
    assert run.rows() == {}
    assert run.reconstructions(MODALITY) == []
    run.write_case(row("bb"), reconstruction("bb", latents=True), MODALITY)
    run.write_case(row("a", "failed", error="oops"), None, MODALITY)
    run.write_case(row("ccc", "partial"), reconstruction("ccc", 1, complete=False), MODALITY)

    def check():
        found = {item.case.id: item for item in run.reconstructions(MODALITY)}
        assert found.keys() == {"bb", "ccc"}
        assert torch.equal(found["bb"].samples, torch.full((2, 1, 2, 2), 2.0))
        assert torch.equal(found["bb"].latents, torch.ones(2, 3))
        assert found["ccc"].latents is None
        assert found["bb"].history == {"loss": [1.0, 0.5]}
        assert (found["bb"].complete, found["ccc"].complete) == (True, False)
        assert found["bb"].case == Case(id="bb", goal="class", label=1)
        assert run.rows()["a"]["error"] == "oops"

    check()
    run.collect(["ccc", "a", "bb", "never-done"])
    assert not (run.directory / "cases").exists()
    assert list(run.rows()) == ["ccc", "a", "bb"]
    check()


def test_snapshots_are_kept(run):
    earlier = [Snapshot(queries=queries, samples=torch.full((2, 1, 2, 2), queries / 10)) for queries in (10, 40)]
    run.write_case(row("a"), reconstruction("a", snapshots=earlier), MODALITY)
    run.write_case(row("b"), reconstruction("b"), MODALITY)
    for _ in range(2):
        first, second = run.reconstructions(MODALITY)
        assert [item.queries for item in first.snapshots] == [10, 40]
        assert torch.equal(first.snapshots[1].samples, earlier[1].samples)
        assert torch.equal(first.samples, reconstruction("a").samples)
        assert second.snapshots == ()
        run.collect(["a", "b"])


def test_collecting_twice_or_with_nothing_is_harmless(run):
    run.collect([])
    assert run.rows() == {}
    run.write_case(row("a"), reconstruction("a"), MODALITY)
    run.collect(["a"])
    run.collect(["a"])
    assert list(run.rows()) == ["a"]


def test_a_later_row_goes_before_an_earlier_one_and_leaves_none_of_its_tensors(run):
    run.write_case(row("a", "partial"), reconstruction("a", 3, latents=True), MODALITY)
    run.collect(["a"])
    run.write_case(row("a"), reconstruction("a", 1), MODALITY)
    for _ in range(2):
        (found,) = run.reconstructions(MODALITY)
        assert len(found.samples) == 1
        assert found.latents is None
        run.collect(["a"])


def test_a_row_can_be_changed_without_its_reconstruction(run):
    run.write_case(row("a", "partial"), reconstruction("a", 3, latents=True), MODALITY)
    run.write_case(row("ab"), reconstruction("ab"), MODALITY)
    run.collect(["a", "ab"])
    run.amend_case({**run.rows()["a"], "seconds": 9})
    assert run.rows()["a"]["seconds"] == 9
    found = {item.case.id: item for item in run.reconstructions(MODALITY)}
    assert len(found["a"].samples) == 3
    assert found["a"].history == {"loss": [1.0, 0.5]}


def test_a_collection_that_was_killed_before_it_tidied_up_is_whole(run):
    run.write_case(row("a"), reconstruction("a"), MODALITY)
    kept = run.case_path("a").read_bytes()
    run.collect(["a"])
    run.case_path("a").parent.mkdir()
    run.case_path("a").write_bytes(kept)
    assert len(run.reconstructions(MODALITY)) == 1
    run.collect(["a"])
    assert not run.case_path("a").exists()


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", "ü", "x" * 300])
def test_case_ids_are_no_paths(run, name):
    run.write_case(row(name), reconstruction(name), MODALITY)
    assert run.case_path(name).parent == run.directory / "cases"
    assert list(run.rows()) == [name]


def test_a_damaged_case_is_an_error(run):
    run.write_case(row("a"), reconstruction("a"), MODALITY)
    run.case_path("a").write_bytes(run.case_path("a").read_bytes()[:-3])
    with pytest.raises(RunError, match="truncated"):
        run.rows()


def test_controls(run):
    assert run.controls(MODALITY) == {}
    run.write_controls("prior-samples", [reconstruction("a"), reconstruction("bb", 1)], MODALITY)
    found = run.controls(MODALITY)
    assert [item.case.id for item in found["prior-samples"]] == ["a", "bb"]
    assert torch.equal(found["prior-samples"][1].samples, torch.full((1, 1, 2, 2), 2.0))
    assert found["prior-samples"][0].complete


def test_measurements(run):
    assert run.measurements() == []
    assert run.judges() == {}
    run.write_measurements([MEASUREMENT], {"evaluator-model": {"model": "mlp"}})
    assert Run.open(run.directory).measurements() == [MEASUREMENT]
    assert run.judges() == {"evaluator-model": {"model": "mlp"}}


def test_measurements_of_another_schema_are_refused(run):
    (run.directory / "measurements.json").write_text('{"schema": "other"}')
    with pytest.raises(RunError, match="is not of schema"):
        run.measurements()
