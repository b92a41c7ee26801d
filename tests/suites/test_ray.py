"""Suites on a Ray cluster of two workers with nothing in common, one of which is killed: as in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from micore.cli.app import App
from micore.registry import Registry
from micore.suites import launchers, run_suite
from micore.suites.processes import Outcome
from tests.conftest import FakeSite
from tests.e2e.outcomes import figures, ledger, stored

pytest.importorskip("ray", reason="`pip install 'micore[ray]'`: suites on a cluster are not tested without Ray")

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = """
import os
import signal
import socket
from pathlib import Path

import torch

from micore.contracts import Prepared
from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access
from tests import toys

PLUGIN = toys.ToyPlugin()
for name in ("mi_modalities", "mi_datasets", "mi_models", "mi_defenses", "mi_evaluators"):
    globals()[name] = getattr(PLUGIN, name)


@hookimpl
def mi_attacks():
    common = {"modality": "toy", "goal": "class", "summary": "Toy"}
    fatal = AttackSpec(name="fatal", target="{module}:Fatal", access=Access.LABEL, **common)
    shelved = AttackSpec(name="shelved", target="{module}:Shelved", access=Access.LABEL, **common)
    return [*PLUGIN.mi_attacks(), fatal, shelved]


class Fatal(toys.LabelAttack):
    "Kills the worker that started it at its third case, as long as a file is there, which it takes away."

    def before_case(self, case):
        note = Path(os.environ.get("TOY_NOTE", "nowhere"))
        if case.id == "class-2" and note.exists():
            note.rename(note.with_suffix(".done"))
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()


class Shelved(toys.LabelAttack):
    "Has a prior that knows no target, which every row of a suite takes from the shelf."

    def prepare(self, target, public, runtime):
        def work(runtime):
            with open(os.environ["TOY_MADE"], "a") as stream:
                stream.write(os.environ["MI_HOME"] + chr(10))
            return {"noise": torch.ones(3)}

        return Prepared(state=runtime.shelf.take("toy-prior", work, runtime))
"""

SUITE = """
name = "twelve"
[[target]]
name = "grids"
data = "grids"
data_options = { size = 4 }
model = "conv"
training = { epochs = 1 }
""" + "".join(
    f'[[attack]]\nname = "{plugin} {index}"\nplugin = "{plugin}"\nevaluators = ["mean"]\n{options}\n'
    for index, (plugin, options) in enumerate(
        [
            ("shelved", "seeds = [0]"),
            ("scripted", "seeds = [0, 1]\noptions = { steps = 3 }"),
            ("fatal", "seeds = [0]"),
            ("by-label", "seeds = [0, 1]"),
            ("scripted", "seeds = [0, 1]\noptions = { restarts = 3 }"),
            ("scripted", "seeds = [0, 1]\noptions = { prepare_queries = 3 }"),
            ("shelved", "seeds = [0, 1]"),
        ]
    )
)

CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for name in ("one", "two"):
    place = os.path.join(sys.argv[1], name)
    os.makedirs(place)
    cluster.add_node(num_cpus=1, env_vars={"MI_HOME": os.path.join(place, "home"), "TMPDIR": place})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def environment(site: FakeSite, tmp_path: Path) -> dict[str, str]:
    """What the workers see: the toys, and what these tell."""
    site.install("mi-toy", PLUGIN)
    kept = {name: value for name, value in os.environ.items() if name != "MI_DATA_ROOT"}  # toys take none
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(site.path), str(ROOT)]), "OMP_NUM_THREADS": "1",
        "MI_HOME": str(tmp_path / "home"), "TOY_NOTE": str(tmp_path / "note.txt"),
        "TOY_MADE": str(tmp_path / "made.txt"), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",
    }  # fmt: skip


@pytest.fixture
def cluster(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of two machines with one processor, a home and a temporary folder each."""
    place = tmp_path / "machines"
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(place)], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    yield next(line.strip() for line in process.stdout if line[:1].isdigit())
    process.communicate("", timeout=60)


def bench(environment: dict[str, str], path: Path, place: Path, *options: str) -> tuple[int, str, Any]:
    """Run ``mi bench`` in a process of its own; return its exit code, what it said and its document."""
    done = subprocess.run(
        [sys.executable, "-m", "micore", "bench", str(path), "-o", str(place), "--device", "cpu", "--json", *options],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr, json.loads(done.stdout) if done.stdout.startswith("{") else None


def serially(path: Path, place: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the same suite row by row in this process."""
    import mi_toy

    registry = Registry.from_plugins({"mi-toy": mi_toy})
    monkeypatch.delenv("MI_DATA_ROOT", raising=False)
    monkeypatch.setattr(App, "plugins", property(lambda app: registry))
    monkeypatch.setattr(launchers, "call", lambda arguments, log, held=None: in_process(arguments, home))
    return run_suite(registry, path, place)


def in_process(arguments: Sequence[str], home: Path) -> Outcome:
    from micore.cli import main

    made = {"MI_HOME": str(home), "TOY_MADE": str(home.with_name("made-alone.txt"))}
    result = CliRunner().invoke(main, list(arguments), prog_name="mi", env=made)
    return Outcome(code=result.exit_code, seconds=0.0, error=result.stderr if result.exit_code else None)


def results(place: Path) -> dict[str, Any]:
    """Return what every row recovered, its figures and what it spent, bit for bit, by the row's folder."""
    runs = sorted((place / "rows").glob("*/run"))
    return {run.parent.name: (stored(run / "reconstructions.safetensors"), figures(run), ledger(run)) for run in runs}


def test_twelve_rows_on_two_workers_of_which_one_is_killed(
    environment: dict[str, str], cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, place = tmp_path / "twelve.toml", tmp_path / "out"
    path.write_text(SUITE)
    (tmp_path / "note.txt").write_text("kill")
    code, said, document = bench(environment, path, place, "--launcher", "ray", "--address", cluster)
    assert code == 0, said
    assert "(raylet)" in said, "Ray told of a lost worker, not on stdout"
    assert (tmp_path / "note.done").exists(), "a worker was killed"
    assert [row["status"] for row in document["rows"]] == ["finished"] * 12
    alone = serially(path, tmp_path / "alone", tmp_path / "alone-home", monkeypatch)
    assert [row["status"] for row in alone["rows"]] == ["finished"] * 12, alone["rows"][0]["error"]
    assert results(place) == results(tmp_path / "alone")
    assert len(results(place)) == 12
    for mine, other in zip(document["rows"], alone["rows"], strict=True):
        assert mine["figures"] == other["figures"]
    made = (tmp_path / "made.txt").read_text().splitlines()
    assert len(made) == 1, "the prior was made on one machine"
    assert set(json.loads((place / "shared.json").read_text())) >= {"shelf/toy-prior.safetensors"}
    homes = [tmp_path / "home", *(tmp_path / "machines" / name / "home" for name in ("one", "two"))]
    priors = [(home / "cache" / "shelf" / "toy-prior.safetensors").read_bytes() for home in homes]
    assert len(set(priors)) == 1, "and is everywhere"
    assert not [text for text in texts(place) if str(tmp_path / "machines") in text], "no worker's place is named"
    left = [found for name in ("one", "two") for found in (tmp_path / "machines" / name).glob("micore-bench-*")]
    assert left == []


def texts(place: Path) -> list[str]:
    kinds = (".json", ".jsonl", ".html", ".md", ".txt", ".log")
    return [found.read_text() for found in place.rglob("*") if found.suffix in kinds]
