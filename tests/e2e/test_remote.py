"""An audit over the network, on this machine: counts agree, and what goes wrong loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import PATIENCE_S, CommandLine
from tests.e2e.outcomes import events, manifest, recovered
from tests.e2e.serving import Relay, Server

Arguments = Callable[..., tuple[object, ...]]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Start ``mi`` with a home that these tests share: a prior that knows no target is trained once."""
    shell = CommandLine(tmp_path_factory.mktemp("remote-home"))
    yield shell
    shell.end()


@pytest.fixture(scope="module")
def arguments(judge: Path) -> Arguments:
    """Return the arguments of a small attack on a target."""

    def build(model: object, run: Path, *further: object, plugin: str = "brep-mi") -> tuple[object, ...]:
        return ("attack", "--plugin", plugin, "--model", model, "--data", "digits", "--preset", "smoke", "--device",
                "cpu", "--evaluator-model", judge, "-e", "accuracy", "-o", run, *further)  # fmt: skip

    return build


def spent(run: Path) -> int:
    total: int = manifest(run)["ledger"]["total"]["queries"]
    return total


def test_a_remote_target_gives_what_the_same_target_gives_here(shell, target, arguments, tmp_path):
    server, run, here = Server(shell, target, "--access", "label"), tmp_path / "run", tmp_path / "here"
    done = shell.run(*arguments(server.url, run))
    assert done.returncode == 0, done.stderr
    assert spent(run) == server.answered() > 0
    assert manifest(run)["access"] == {"granted": "label", "used": "label"}
    assert any("cannot be seen" in note for note in manifest(run)["notes"])
    local = shell.run(*arguments(target, here))
    assert local.returncode == 0, local.stderr
    assert recovered(run) == recovered(here)
    assert spending(run) == spending(here)


def tensors(run: Path) -> Any:
    (found, _), _ = recovered(run)
    return found


def spending(run: Path) -> list[Any]:
    return [(case["id"], case["spending"]) for case in manifest(run)["cases"]]


def test_a_server_that_fails_in_every_way_and_is_killed(shell, target, arguments, tmp_path):
    """One run: slow answers, errors, malformed JSON, NaN; then the server dies, comes back, and the run goes on."""
    server, run = Server(shell, target), tmp_path / "run"
    relay = Relay(server, ["slow", 429, None, 500, "malformed", None, "nan", 503])
    options = ("--batch", "1", "-M", "attempts=4", "-M", "timeout=1")
    process = shell.start(*arguments(relay.url, run, *options, plugin="rlb-mi"))
    deadline = time.monotonic() + PATIENCE_S
    while not list(run.glob("cases/*.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None, shell.finish(process).stderr
        time.sleep(0.01)
    server.kill()
    stopped = shell.finish(process)
    assert stopped.returncode == 14, stopped.stderr
    error, hint = stopped.stderr.splitlines()[-2:]
    assert f"{relay.url} failed 4 times; the last time: status 502" in error
    assert hint.startswith("hint: see to the server")
    assert not relay.plan
    assert "done" in [event["status"] for event in events(run) if event["event"] == "case"]
    server.start()
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert {case["status"] for case in manifest(run)["cases"]} == {"done"}
    undisturbed = shell.run(*arguments(server.url, tmp_path / "undisturbed", "--batch", "1", plugin="rlb-mi"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert tensors(run) == tensors(tmp_path / "undisturbed"), "only what the interrupted case spent may differ"
    relay.close()


def test_the_budget_stops_exactly(shell, target, arguments, tmp_path):
    server, run = Server(shell, target, "--access", "label"), tmp_path / "run"
    done = shell.run(*arguments(server.url, run, "--budget-queries", "200"))
    assert done.returncode == 7, done.stderr
    assert spent(run) == server.answered() <= 200


def test_nobody_there(shell, arguments, tmp_path):
    done = shell.run(*arguments("http://127.0.0.1:9/v2/models/target", tmp_path / "run", "-M", "attempts=2"))
    assert done.returncode == 14
    assert "failed 2 times" in done.stderr
    assert not (tmp_path / "run").exists()
