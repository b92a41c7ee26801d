"""An audit over the network, on this machine: counts agree, and what goes wrong loses nothing."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.commands import CommandLine
from tests.e2e.outcomes import manifest


class Server:
    """``mi serve`` in a process of its own, which can be killed and started again at its port."""

    def __init__(self, shell: CommandLine, target: Path, *arguments: str) -> None:
        self.shell, self.arguments = shell, (str(target), *arguments)
        self.port = "0"
        self.start()

    def start(self) -> None:
        """Start it, and wait for the address that it prints."""
        self.process = self.shell.start("serve", *self.arguments, "--port", self.port)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        found = re.search(r":(\d+)/", self.url)
        assert found is not None, self.url
        self.port = found[1]

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def answered(self) -> int:
        """Return how many samples it has answered since it was started."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as response:  # waits until it listens
            count: int = json.load(response)["model_stats"][0]["inference_count"]
        return count


@pytest.fixture
def arguments(judge, tmp_path):
    """Return the arguments of a small label-only attack on an address."""

    def build(url: str, *further: object) -> tuple[object, ...]:
        return ("attack", "--plugin", "brep-mi", "--model", url, "--data", "digits", "--preset", "smoke",
                "--evaluator-model", judge, "-e", "accuracy", "-M", "attempts=2", "-o", tmp_path / "run",
                *further)  # fmt: skip

    return build


def queries(run: Path) -> int:
    total: int = manifest(run)["ledger"]["total"]["queries"]
    return total


def test_the_ledger_counts_what_the_server_answered(shell, target, arguments, tmp_path):
    server = Server(shell, target, "--access", "label")
    done = shell.run(*arguments(server.url))
    assert done.returncode == 0, done.stderr
    found = manifest(tmp_path / "run")
    assert queries(tmp_path / "run") == server.answered() > 0
    assert found["access"] == {"granted": "label", "used": "label"}
    assert any("cannot be seen" in note for note in found["notes"])


def test_a_remote_target_gives_what_the_same_target_gives_here(shell, target, arguments, tmp_path):
    server = Server(shell, target, "--access", "label")
    assert shell.run(*arguments(server.url)).returncode == 0
    here = [item if item != server.url else target for item in arguments(server.url, "-o", tmp_path / "here")]
    local = [item for item in here if item not in ("-M", "attempts=2")]
    done = shell.run(*local)
    assert done.returncode == 0, done.stderr
    rows = [[(case["id"], case["spending"]) for case in manifest(tmp_path / name)["cases"]] for name in ("run", "here")]
    assert rows[0] == rows[1]


def test_a_server_that_is_killed_and_comes_back(shell, target, arguments, tmp_path):
    server, run = Server(shell, target, "--access", "label"), tmp_path / "run"
    process = shell.start(*arguments(server.url, "--batch", "1"))
    while not list(run.glob("cases/*.safetensors")):
        assert process.poll() is None, shell.finish(process).stderr
    server.kill()
    stopped = shell.finish(process)
    assert stopped.returncode == 14, stopped.stderr
    error, hint = stopped.stderr.splitlines()[-2:]
    assert error.startswith("error: http://127.0.0.1")
    assert "failed 2 times" in error
    assert hint
    kept = {path.name: path.read_bytes() for path in run.glob("cases/*.safetensors") if path.stat().st_size}
    assert kept
    server.start()
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert manifest(run)["status"] == "finished"
    assert {case["status"] for case in manifest(run)["cases"]} == {"done"}


def test_the_budget_stops_exactly(shell, target, arguments, tmp_path):
    server = Server(shell, target, "--access", "label")
    done = shell.run(*arguments(server.url, "--budget-queries", "200"))
    assert done.returncode == 7, done.stderr
    assert queries(tmp_path / "run") == server.answered() <= 200


def test_nobody_there(shell, arguments, tmp_path):
    done = shell.run(*arguments("http://127.0.0.1:9/v2/models/target"))
    assert done.returncode == 14
    assert "failed 2 times" in done.stderr
    assert not (tmp_path / "run").exists()
