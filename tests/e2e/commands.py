"""Calling ``mi``: in processes of its own, or in this one where that shows the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner, Result

PATIENCE_S = 120
SMALL = ("--data", "digits", "-D", "size=16", "--device", "cpu")


def heed_interrupts() -> None:
    """Let SIGINT end a child even where the tests themselves run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class CommandLine:
    """Starts ``mi`` in processes of their own, with one home."""

    home: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a process."""
        return {**os.environ, "MI_HOME": str(self.home), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}

    def start(
        self, *arguments: object, env: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.Popen[str]:
        """Start ``mi`` and return its process."""
        return self.start_program("micore", *arguments, env=env, **options)

    def start_program(
        self, module: str, *arguments: object, env: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.Popen[str]:
        """Start a module, such as a launcher of ``mi``, and return its process."""
        command = [sys.executable, "-W", "error", "-m", module, *map(str, arguments)]
        options.setdefault("preexec_fn", heed_interrupts)
        process = subprocess.Popen(
            command, env=self.environment(**(env or {})), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **options,
        )  # fmt: skip
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for a process."""
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run ``mi`` to its end."""
        return self.finish(self.start(*arguments, **options))

    def stop(
        self, process: subprocess.Popen[str], at: Callable[[], bool], how: int
    ) -> subprocess.CompletedProcess[str]:
        """Send a signal to a process as soon as ``at()`` holds, while it is still at work."""
        self.wait(process, at)
        process.send_signal(how)
        return self.finish(process)

    def wait(self, process: subprocess.Popen[str], at: Callable[[], bool]) -> None:
        """Wait until ``at()`` holds, while a process is still at work."""
        deadline = time.monotonic() + PATIENCE_S
        while not at():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"it never came so far: {self.finish(process).stderr}")
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be stopped"

    def kill(self, process: subprocess.Popen[str], at: Callable[[], bool]) -> None:
        """Kill a process as a power cut would, as soon as ``at()`` holds."""
        assert self.stop(process, at, signal.SIGKILL).returncode == -signal.SIGKILL

    def end(self) -> None:
        """Leave no process behind."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.communicate()


def call(home: Path, *arguments: object) -> Result:
    """Call ``mi`` in this process."""
    from micore.cli import main

    return CliRunner().invoke(main, [str(item) for item in arguments], prog_name="mi", env={"MI_HOME": str(home)})


def trained(path: Path, *options: str) -> Path:
    """Train a model by the command line, in this process."""
    result = call(path.parent / "home", "train", *SMALL, *options, "-o", str(path))
    assert result.exit_code == 0, result.output
    return path


def leftovers(*places: Path) -> list[Path]:
    """Return files that were begun and not finished."""
    return [path for place in places for path in place.rglob("*.part")]


def complaint(found, code, stdout, stderr, place, before):
    """Check what a refusal looks like and return its error and hint."""
    assert found == code, stderr
    assert stdout == ""
    lines = stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    hints = [line for line in lines if line.startswith("hint: ")]
    assert len(errors) == 1, stderr
    assert len(hints) <= 1
    assert "Traceback" not in stderr
    assert "internal error" not in stderr
    assert lines[-1 - len(hints)] == errors[0], "nothing else is between or after them"
    after = {path for path in place.rglob("*") if "home" not in path.relative_to(place).parts}
    assert after == before, "nothing was written"
    assert not leftovers(place)
    return errors[0], "".join(hints)
