"""Processes of rows: what they say is kept, how they end is told, and an interruption is passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from micore.errors import RunError, StorageError
from micore.suites import processes
from micore.suites.processes import call, only_one


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program that takes the place of ``mi``."""
    path = tmp_path / "program"
    path.mkdir()
    monkeypatch.setattr(processes, "PROGRAM", [sys.executable, str(path / "main.py")])
    return path / "main.py"


@pytest.mark.parametrize(
    ("source", "code", "error"),
    [
        ("print('fine')", 0, None),
        ("raise SystemExit(9)", 9, None),
        ("import sys; print('error: no such data', file=sys.stderr); sys.exit(8)", 8, "no such data"),
        (
            "import sys; print('error: one\\nerror: two\\nhint: mend it', file=sys.stderr); sys.exit(3)",
            3, "two (mend it)",
        ),
        ("import sys; print('Killed'); sys.exit(137)", 137, "exit code 137: Killed"),
        ("import sys; sys.exit(4)", 4, "exit code 4: it said nothing"),
        ("raise ValueError('a bug')", 1, "exit code 1: ValueError: a bug"),
        ("import os; os.abort()", -6, "the process was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", -9, "the process was killed by SIGKILL: memory may have run out"),
    ],
)  # fmt: skip
def test_how_a_process_ended(script: Path, tmp_path: Path, source: str, code: int, error: str | None) -> None:
    script.write_text(source)
    log = tmp_path / "logs" / "log.txt"
    outcome = call(["attack", "--classes", "0 1"], log)
    assert outcome.code == code
    assert outcome.seconds > 0
    assert (outcome.error or "").startswith(error or "")
    assert (outcome.error is None) == (error is None)
    assert log.read_text().startswith("$ mi attack --classes '0 1'\n")


def test_only_what_this_process_said_is_its_error(script: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    script.write_text("import sys; print('error: the first', file=sys.stderr); sys.exit(1)")
    call(["attack"], log)
    script.write_text("import sys; sys.exit(1)")
    assert call(["resume"], log).error == "exit code 1: it said nothing"
    assert log.read_text() == "$ mi attack\nerror: the first\n$ mi resume\n"


def test_a_log_that_cannot_be_written(script: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        call(["attack"], tmp_path / "logs" / "log.txt")


def test_options_from_the_environment_are_no_part_of_a_row(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MI_ATTACK_CLASSES", "MI_TRAIN_DEVICE", "MI_COLOR"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("MI_DATA_ROOT", "/data")
    script.write_text("import os; print(sorted(name for name in os.environ if name.startswith('MI_')))")
    call(["attack"], tmp_path / "log.txt")
    said = (tmp_path / "log.txt").read_text()
    assert "MI_DATA_ROOT" in said
    assert "MI_HOME" in said
    assert not any(name in said for name in ("MI_ATTACK_CLASSES", "MI_TRAIN_DEVICE", "MI_COLOR"))


WAITING = """
import signal, sys, time
from pathlib import Path
def stop(number, frame):
    Path(sys.argv[2]).write_text(signal.Signals(number).name)
    {then}
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
Path(sys.argv[1]).write_text("begun")
time.sleep(60)
"""


def interrupted(script: Path, tmp_path: Path) -> str:
    """Interrupt a call as soon as its process waits; return the signal that it got."""
    begun, heard = tmp_path / "begun", tmp_path / "heard"

    def interrupt() -> None:
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            call([str(begun), str(heard)], tmp_path / "log.txt")
    finally:
        signal.signal(signal.SIGINT, before)
    return heard.read_text()


def test_an_interruption_is_passed_on_and_waited_for(script: Path, tmp_path: Path) -> None:
    script.write_text(WAITING.format(then="time.sleep(0.3); Path(sys.argv[2]).write_text('ended well'); sys.exit(130)"))
    assert interrupted(script, tmp_path) == "ended well"


def test_a_process_that_does_not_stop_is_killed(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE_S", 0.2)
    script.write_text(WAITING.format(then="time.sleep(60)"))
    started = time.monotonic()
    assert interrupted(script, tmp_path) == "SIGTERM"
    assert time.monotonic() - started < 20


# locks --------------------------------------------------------------------------------------------


def test_a_directory_is_held_by_one(tmp_path: Path) -> None:
    with only_one(tmp_path / "out"):
        with pytest.raises(RunError, match="is still at work in") as caught, only_one(tmp_path / "out"):
            pass
        assert caught.value.hint == "wait until it ends"
    with only_one(tmp_path / "out"):
        pass


def test_a_row_that_outlives_its_benchmark_holds_the_directory(tmp_path: Path) -> None:
    with only_one(tmp_path) as held:
        assert held is not None
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[held])
    try:
        with pytest.raises(RunError, match="is still at work in"), only_one(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
    with only_one(tmp_path):
        pass


def test_without_locks_nobody_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with only_one(tmp_path) as held, only_one(tmp_path):
        assert held is None


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"), only_one(tmp_path / "out"):
        pass
