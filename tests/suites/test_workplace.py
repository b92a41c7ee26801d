"""What a worker does with an order, and how files travel: without a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from micore.errors import RuntimeUnavailable, StorageError, UsageError
from micore.suites import Launch, Machine, Precision, workplace
from micore.suites.launchers import check_launch
from micore.suites.parcels import moved, moved_manifest, pack, relocated, unpack
from micore.suites.processes import Outcome
from micore.suites.workplace import Order, clean, work


def content(text: str) -> Any:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def text(parcel: Any, name: str) -> str:
    return bytes(parcel[name]).decode()


# parcels ------------------------------------------------------------------------------------------


def test_a_folder_arrives_whole_and_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "a.txt").write_text("a")
    (folder / "run.json").write_text("{}")
    (folder / ".run.json.1.part").write_text("half")
    (folder / "empty").write_bytes(b"")
    parcel = pack(folder)
    assert sorted(parcel) == ["empty", "run.json", "samples/a.txt"]
    there = tmp_path / "there" / "run"
    there.mkdir(parents=True)
    (there / "old").write_text("old")
    unpack(parcel, there)
    assert sorted(pack(there)) == sorted(parcel)
    assert (there / "samples" / "a.txt").read_text() == "a"
    assert [path.name for path in there.parent.iterdir()] == ["run"]


def test_a_file_arrives_and_nothing_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    unpack(pack(tmp_path / "a"), tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == b"weights"
    unpack(pack(tmp_path / "nowhere"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"weights"


def test_a_place_that_cannot_be_written_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        unpack({"run.json": content("{}")}, tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"


def test_texts_name_the_new_place() -> None:
    old, new = Path("/scratch/worker-1"), Path('/place/a "b" & c')
    parcel = {
        "run.json": content(json.dumps({"model": "/scratch/worker-1/targets/x"})),
        "report.html": content("<p>/scratch/worker-1/run</p>"), "x.safetensors": content("/scratch/worker-1"),
    }  # fmt: skip
    found = moved(parcel, old, new)
    assert json.loads(text(found, "run.json")) == {"model": f"{new}/targets/x"}
    assert text(found, "report.html") == "<p>/place/a &quot;b&quot; &amp; c/run</p>"
    assert text(found, "x.safetensors") == "/scratch/worker-1"


def test_a_manifest_that_goes_to_a_worker_changes_in_paths_below_the_place_only() -> None:
    document = {"model": "/out/targets/x", "root": "/data/out/y", "beside": "/output/x"}
    found = moved_manifest({"run.json": content(json.dumps(document))}, Path("/out"), Path("/scratch/w"))
    assert json.loads(text(found, "run.json")) == {**document, "model": "/scratch/w/targets/x"}
    assert moved_manifest({"other": content("a")}, Path("/out"), Path("/scratch/w")).keys() == {"other"}


def test_arguments_are_relocated() -> None:
    given = ["attack", "--model", "/out/targets/a", "-o", "/out/rows/a/run", "--data", "folder:/out/x", "/outer/x"]
    assert relocated(given, Path("/out"), Path("/scratch/w")) == [
        "attack", "--model", "/scratch/w/targets/a", "-o", "/scratch/w/rows/a/run", "--data", "folder:/out/x",
        "/outer/x",
    ]  # fmt: skip


# a worker -----------------------------------------------------------------------------------------


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    """An attack of a benchmark whose directory is on another machine."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    return Order(
        bench="b", arguments=("attack", "--model", "/far/targets/t", "-o", "/far/rows/r/run"), place="/far",
        directory="/far/away", makes="rows/r/run", log="rows/r/log.txt", begun={}, bundle=("targets/t", "the target"),
        cached={"shelf/prior": "the prior"}, home=("far", "/far/home"),
    )  # fmt: skip


Script = Callable[[list[str]], Outcome]


@pytest.fixture
def pretending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Let a function take the place of ``mi``."""

    def install(script: Script) -> None:
        def call(arguments: list[str], log: Path, **others: Any) -> Outcome:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"$ mi {arguments}")
            return script(arguments)

        monkeypatch.setattr(workplace, "call", call)

    return install


def fetched(reference: str) -> Any:
    return content(reference)


def test_an_order_is_carried_out_where_its_files_are(order: Order, pretending: Any, tmp_path: Path) -> None:
    seen = {}

    def script(arguments: list[str]) -> Outcome:
        bundle, run = Path(arguments[2]), Path(arguments[4])
        seen["bundle"] = bundle.read_text()
        seen["prior"] = (tmp_path / "home" / "cache" / "shelf" / "prior").read_text()
        (run / "samples").mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"model": str(bundle)}))
        made = tmp_path / "home" / "cache" / "prepared" / "key"
        made.mkdir(parents=True)
        (made / "prepared.safetensors").write_text("ready")
        (made / "checkpoint.safetensors").write_text("half")
        return Outcome(code=4, seconds=1.0, error=f"no luck ({run})")

    pretending(script)
    found = work(order, fetched)
    assert seen == {"bundle": "the target", "prior": "the prior"}
    assert json.loads(text(found.made, "run.json")) == {"model": "/far/targets/t"}
    assert found.outcome == Outcome(code=4, seconds=1.0, error="no luck (/far/rows/r/run)")
    assert text(found.log, "log.txt").startswith("$ mi ['attack', '--model', '/far/targets/t'")
    assert {name: text(found.cached, name) for name in found.cached} == {"prepared/key/prepared.safetensors": "ready"}
    assert [path.name for path in (tmp_path / "tmp" / "micore-bench-b").iterdir()] == ["targets"], "for the next row"
    clean("b")
    assert not any((tmp_path / "tmp").iterdir())


def test_a_machine_fetches_what_is_shared_once(order: Order, pretending: Any) -> None:
    pretending(lambda arguments: Outcome(code=0, seconds=1.0, error=None))
    asked: list[str] = []

    def get(reference: str) -> Any:
        asked.append(reference)
        return content(reference)

    work(order, get)
    work(replace(order, makes="rows/s/run"), get)
    assert asked == ["the target", "the prior"]


def test_the_cache_of_the_drivers_own_machine_is_not_sent_back(order: Order, pretending: Any, tmp_path: Path) -> None:
    def script(arguments: list[str]) -> Outcome:
        (tmp_path / "home" / "cache" / "shelf" / "new").write_text("new")
        return Outcome(code=0, seconds=1.0, error=None)

    pretending(script)
    assert work(replace(order, home=workplace.here()), fetched).cached == {}


def test_a_begun_run_goes_on_at_the_worker(order: Order, pretending: Any) -> None:
    seen = {}

    def script(arguments: list[str]) -> Outcome:
        seen["model"] = json.loads((Path(arguments[1]) / "run.json").read_text())["model"]
        assert Path(seen["model"]).read_text() == "the target"
        return Outcome(code=0, seconds=1.0, error=None)

    pretending(script)
    begun = {"run.json": content(json.dumps({"model": "/far/targets/t"}))}
    found = work(replace(order, arguments=("resume", "/far/rows/r/run"), begun=begun), fetched)
    assert json.loads(text(found.made, "run.json")) == {"model": "/far/targets/t"}


def test_a_machine_without_space_is_a_failed_row(order: Order, tmp_path: Path) -> None:
    (tmp_path / "tmp").rmdir()
    (tmp_path / "tmp").write_text("no folder")
    found = work(order, fetched)
    assert found.outcome.code == StorageError.exit_code
    assert "cannot write" in str(found.outcome.error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_a_tied_process_ends_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from micore.tied import tie; tie(int(sys.argv[1]));"
        "open(sys.argv[2], 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid()), sys.argv[1]]).wait()"
    )
    note = tmp_path / "note"
    process = subprocess.Popen([sys.executable, "-c", parent, str(note)])
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    tied = Path(f"/proc/{note.read_text()}/stat")
    while tied.exists() and tied.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


# what is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launch", "device", "message"),
    [
        (Launch(name="slurm"), "cpu", "unknown launcher 'slurm'"),
        (Launch(address="auto"), "cpu", "are for --launcher ray"),
        (Launch(cpus=2), "cpu", "are for --launcher ray"),
        (Launch(name="ray"), "cuda:1", "gives every row its device"),
    ],
)
def test_launchers_that_cannot_be(launch: Launch, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_launch(launch, Machine(device=device), Precision())


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailable, match="needs Ray") as caught:
        check_launch(Launch(name="ray"), Machine(device="cpu"), Precision())
    assert caught.value.hint == 'pip install "micore[ray]"'
    with pytest.raises(RuntimeUnavailable, match="unknown precision"):
        check_launch(Launch(name="ray"), Machine(device="cpu"), Precision(name="fp8"))
