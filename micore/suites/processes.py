"""Running ``mi`` in a process of its own: what breaks there is told, and breaks nothing here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from micore.errors import CaseFailed, RunError, StorageError
from micore.suites.commands import shown

PROGRAM = (sys.executable, "-m", "micore")
PATIENCE_S = 60.0
"""How long a process that was told to stop may take to write what it has."""
COMPLETE = (0, CaseFailed.exit_code)
"""Exit codes of runs that came to their end; single cases may have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a process ended. error: None when it came to its end."""

    code: int
    seconds: float
    error: str | None


def call(
    arguments: Sequence[str],
    log: Path,
    held: int | None = None,
    *,
    program: Sequence[str] | None = None,
    directory: Path | None = None,
) -> Outcome:
    """Run ``mi`` with these arguments; all that it says is added to ``log``.

    held: a file descriptor that the process keeps open as long as it lives. When this process is interrupted
    the other one is told to stop, and waited for. program: what takes the place of ``mi``; directory: where it runs,
    None for here.

    Raises: StorageError when the log cannot be written.
    """
    started = time.monotonic()
    with _appending(log) as stream:
        stream.write(f"$ {shown(arguments)}\n".encode())
        stream.flush()
        begin = stream.tell()
        code = _run([*(program or PROGRAM), *arguments], stream.fileno(), held, directory)
    reason = None if code in COMPLETE else _reason(code, log, begin)
    return Outcome(code=code, seconds=round(time.monotonic() - started, 2), error=reason)


@contextmanager
def _appending(log: Path) -> Iterator[BinaryIO]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("ab")
    except OSError as error:
        raise StorageError(f"cannot write {log}: {error.strerror}", hint="choose another -o") from error
    with stream:
        yield stream


def _run(command: Sequence[str], output: int, held: int | None, directory: Path | None) -> int:
    process = subprocess.Popen(
        command, env=_environment(), cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        pass_fds=[held] if held is not None else (),
        process_group=0 if os.name == "posix" else None,  # Ctrl-C comes to us alone, and we pass it on once
    )  # fmt: skip
    try:
        return process.wait()
    except BaseException:
        _stop(process)
        raise


def _environment() -> dict[str, str]:
    """Return this process's environment without what would set options of a row that the suite does not name."""
    foreign = tuple(f"MI_{command}_" for command in ("TRAIN", "ATTACK", "EVALUATE", "RESUME"))
    terminal = ("MI_COLOR", "MI_QUIET", "MI_VERBOSE")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign) and name not in terminal}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(code: int, log: Path, begin: int) -> str:
    """Return the last error that the process told of, or how it was killed."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ": memory may have run out" if name == "SIGKILL" else ""
        return f"the process was killed by {name}{hint} ({log})"
    with log.open("rb") as stream:
        stream.seek(begin)
        lines = stream.read().decode(errors="replace").splitlines()
    told = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if told:
        message, following = lines[told[-1]].removeprefix("error: "), lines[told[-1] + 1 : told[-1] + 2]
        hint = following[0].removeprefix("hint: ") if following and following[0].startswith("hint: ") else ""
        return f"{message} ({hint})" if hint else message
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"exit code {code}: {last}"


@contextmanager
def only_one(place: Path) -> Iterator[int | None]:
    """Hold a directory: its lock goes on as long as this process, or one that it was handed to, lives.

    Raises: RunError when somebody else holds it; StorageError.
    """
    try:
        import fcntl
    except ImportError:  # not everywhere: there two at once are the user's to avoid
        yield None
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        stream = (place / ".lock").open("a")
    except OSError as error:
        raise StorageError(f"cannot write {place}: {error.strerror}", hint="choose another -o") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"a benchmark, or a row that one began, is still at work in {place}", hint="wait until it ends"
            ) from error
        yield stream.fileno()
