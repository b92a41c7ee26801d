"""What is stopped in the middle goes on, and gives what it would have given."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from micore.artifacts import Bundle
from tests.e2e.commands import SMALL, leftovers
from tests.e2e.outcomes import events, figures, manifest, outcome, recovered

EVERY_STEP = {"MI_CHECKPOINT_SECONDS": "0"}


def a_file(directory, pattern):
    """Return what tells whether a file of this name is there."""
    return lambda: any(directory.glob(pattern))


def test_killed_in_the_preparation(shell, home, attack_arguments, plain, tmp_path):
    run = tmp_path / "run"
    process = shell.start(*attack_arguments, "-o", run, env=EVERY_STEP)
    shell.kill(process, a_file(home, "cache/prepared/*/checkpoint.safetensors"))
    assert manifest(run)["status"] == "preparing"
    assert not list(home.glob("cache/prepared/*/prepared.safetensors"))
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert not list(home.glob("cache/prepared/*/checkpoint.safetensors"))
    assert outcome(run) == outcome(plain)


def test_killed_between_cases(shell, attack_arguments, plain, tmp_path):
    run = tmp_path / "run"
    process = shell.start(*attack_arguments, "--batch", "1", "-o", run)
    shell.kill(process, a_file(run, "cases/class-0.safetensors"))
    assert manifest(run)["status"] == "attacking"
    assert len(list(run.glob("cases/*.safetensors"))) < 5
    (run / "cases" / ".class-1.safetensors.123.part").write_bytes(b"half")
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert not leftovers(run)
    assert [event["id"] for event in events(run) if event["event"] == "case"].count("class-0") == 1
    assert outcome(run) == outcome(plain)


def test_killed_while_it_is_judged(shell, attack_arguments, plain, tmp_path):
    run = tmp_path / "run"
    process = shell.start(*attack_arguments, "-o", run)
    shell.kill(process, a_file(run, "reconstructions.safetensors"))
    assert not (run / "report.html").exists()
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "report.html").exists()
    assert outcome(run) == outcome(plain)


def rank_of(process):
    """Return the rank that a launcher gave a process, None if it gave none or the process is gone."""
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(line[5:]) for line in environment if line.startswith(b"RANK=")), None)


def children(process):
    """Return the processes that one has started."""
    return map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="ranks are told apart by /proc")
def test_one_of_two_ranks_is_killed(shell, attack_arguments, plain, tmp_path):
    run = tmp_path / "run"
    arguments = [item for item in attack_arguments if item not in ("--device", "cpu")]
    launcher = shell.start_program(
        "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "micore", *arguments,
        "--batch", "1", "-o", run, env={"ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    shell.wait(launcher, a_file(run, "cases/class-1.safetensors"))
    (second,) = [process for process in children(launcher.pid) if rank_of(process) == 1]
    os.kill(second, signal.SIGKILL)
    ended = shell.finish(launcher)
    assert ended.returncode != 0
    assert "internal error" not in ended.stderr
    assert "Traceback" not in ended.stderr.partition("torch.distributed.elastic")[0]
    found = manifest(run)
    assert found["status"] in ("interrupted", "failed"), "no run that seems to be at work"
    assert found["status"] == "interrupted" or "another process of this run" in found["error"]
    assert not (run / "report.html").exists()
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert not leftovers(run)
    (mine, control), (other, other_control) = recovered(run), recovered(plain)
    assert mine[0] == other[0]
    assert control == other_control
    assert figures(run) == figures(plain)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_between_cases(shell, attack_arguments, plain, tmp_path, how):
    run = tmp_path / "run"
    process = shell.start(*attack_arguments, "--batch", "1", "-o", run)
    stopped = shell.stop(process, a_file(run, "cases/class-0.safetensors"), how)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stdout == ""
    error, hint = stopped.stderr.splitlines()[-2:]
    assert error.startswith("error: interrupted")
    assert hint == f"hint: `mi resume {run}` continues"
    assert manifest(run)["status"] == "interrupted"
    assert not leftovers(run)
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    (mine, control), (other, other_control) = recovered(run), recovered(plain)
    assert mine[0] == other[0]
    assert control == other_control
    assert figures(run) == figures(plain)
    spent, needed = (manifest(each)["ledger"]["total"]["queries"] for each in (run, plain))
    assert spent >= needed, "what the stopped case had spent is not forgotten"


def test_interrupted_in_the_preparation(shell, home, attack_arguments, plain, tmp_path):
    run = tmp_path / "run"
    process = shell.start(*attack_arguments, "-o", run, env=EVERY_STEP)
    stopped = shell.stop(process, a_file(home, "cache/prepared/*/checkpoint.safetensors"), signal.SIGINT)
    assert stopped.returncode == 130, stopped.stderr
    assert manifest(run)["status"] == "interrupted"
    assert not leftovers(run, home)
    resumed = shell.run("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(run) == outcome(plain)


def test_a_killed_training_goes_on(shell, home, tmp_path, mi):
    arguments = ("train", *SMALL, "--model", "small-cnn", "-p", "epochs=3", "-o")
    expected = tmp_path / "expected.safetensors"
    assert mi(*arguments, expected).exit_code == 0
    assert not list(home.glob("cache/training/*"))
    bundle = tmp_path / "bundle.safetensors"
    process = shell.start(*arguments, bundle, env=EVERY_STEP)
    shell.kill(process, a_file(home, "cache/training/*.safetensors"))
    assert not bundle.exists()
    (checkpoint,) = home.glob("cache/training/*.safetensors")
    again = shell.run(*arguments, bundle, env={"MI_CHECKPOINT_SECONDS": "1000"})
    assert again.returncode == 0, again.stderr
    assert not checkpoint.exists()
    assert Bundle.load(bundle).fingerprint == Bundle.load(expected).fingerprint
    assert Bundle.load(bundle).card.metrics == Bundle.load(expected).card.metrics
