"""``mi bench``: options, output and exit codes; and a suite in real processes, some of which die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from micore import api
from micore.cli.app import App
from micore.errors import CaseFailed, ConfigError, RunError, UsageError
from tests import toys
from tests.suites.conftest import SUITE, Pretended, pretended, suite  # noqa: F401 - fixtures

Mi = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line find the toy plugins only."""
    registry = toys.registry()
    monkeypatch.setattr(App, "plugins", property(lambda app: registry))


pytestmark = pytest.mark.usefixtures("plugins")


def test_a_suite_is_run_and_told(mi: Mi, suite: Path, pretended: Pretended, tmp_path: Path) -> None:  # noqa: F811
    result = mi("bench", str(suite), "-o", str(tmp_path / "out"), "--device", "cpu", "--tile", "8")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["row", "status", "figure", "prepare", "attack"]
    assert lines[1].split() == [
        "grids/none/scripted/0", "finished", "accuracy@1", "0.600", "[0.550,", "0.650]", "30.0", "s", "18.5", "s",
    ]  # fmt: skip
    assert lines[-1] == f"tables: {tmp_path / 'out' / 'bench.html'}"
    assert "[3/3] grids/none/by-label/0: attacking" in result.stderr
    assert "--tile" in pretended.calls[1]


def test_json(mi: Mi, suite: Path, pretended: Pretended, tmp_path: Path) -> None:  # noqa: F811
    result = mi("bench", str(suite), "-o", str(tmp_path / "out"), "--json", "--only", "by-label")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "bench.json").read_text())
    assert json.loads(result.stdout)["asked"] == ["grids/none/by-label/0"]


def test_rows_that_failed_set_the_exit_code(mi: Mi, suite: Path, pretended: Pretended, tmp_path: Path) -> None:  # noqa: F811
    pretended.errors = {"--plugin by-label": "no luck"}
    result = mi("bench", str(suite), "-o", str(tmp_path / "out"))
    assert result.exit_code == CaseFailed.exit_code
    assert ["grids/none/by-label/0", "failed", "-"] in [line.split()[:3] for line in result.stdout.splitlines()]
    assert "error: 1 of 3 rows failed; the first, grids/none/by-label/0: no luck" in result.stderr
    assert "hint: the same command tries them again" in result.stderr
    result = mi("bench", str(suite), "-o", str(tmp_path / "out"), "--only", "scripted")
    assert result.exit_code == 0, "of the rows that were asked for none failed"


def test_bad_input(mi: Mi, suite: Path, pretended: Pretended, tmp_path: Path) -> None:  # noqa: F811
    out = str(tmp_path / "out")
    assert mi("bench", str(suite)).exit_code == UsageError.exit_code
    assert mi("bench", str(tmp_path / "no.toml"), "-o", out).exit_code == ConfigError.exit_code
    assert mi("bench", str(suite), "-o", out, "--only", "plmi").exit_code == UsageError.exit_code
    assert mi("bench", str(suite), "-o", out, "--write", str(suite)).exit_code == UsageError.exit_code
    assert mi("bench", str(suite), "-o", out, "--tile", "0").exit_code == UsageError.exit_code
    result = mi("bench", str(suite), "-o", out, "--precision", "fp8")
    assert result.exit_code == 12
    assert "unknown precision 'fp8'" in result.stderr
    assert mi("bench", str(suite), "-o", out, "--device", "cuda:99").exit_code == 12
    assert pretended.calls == []
    assert not Path(out).exists()


def test_changed_rows_are_refused(mi: Mi, suite: Path, pretended: Pretended, tmp_path: Path) -> None:  # noqa: F811
    arguments = ("bench", str(suite), "-o", str(tmp_path / "out"), "--only", "by-label")
    assert mi(*arguments).exit_code == 0
    assert mi(*arguments, "--precision", "bf16").exit_code == RunError.exit_code
    assert mi(*arguments, "--precision", "bf16", "--renew").exit_code == 0


def test_the_python_function(suite: Path, pretended: Pretended, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.md"
    page.write_text("<!-- toy: begin -->\n<!-- toy: end -->\n")
    pretended.errors = {"--plugin by-label": "no luck"}
    document = api.bench(
        suite, output=tmp_path / "out", data_root="here", write=page, device="cpu", registry=toys.registry()
    )
    assert [row["status"] for row in document["rows"]] == ["finished", "finished", "failed"]
    assert "| grids | none | scripted | 0 |" in page.read_text()
    assert str(Path("here").absolute()) in pretended.calls[0]


# real processes -----------------------------------------------------------------------------------

PLUGIN = """
import os
import signal
import time
from pathlib import Path

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
    dying = AttackSpec(name="dying", target="{module}:Dying", access=Access.LABEL, **common)
    return [*PLUGIN.mi_attacks(), dying]


class Dying(toys.LabelAttack):
    "Stays at its third case as long as a file says how: it dies there, or waits."

    def before_case(self, case):
        note = Path(os.environ["TOY_NOTE"])
        if case.id == "class-2" and note.exists():
            if note.read_text() == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            note.with_suffix(".reached").write_text("here")
            time.sleep(60)
"""

REAL = SUITE.replace("seeds = [0, 1]", "seeds = [0]").replace(
    'model = "conv"', 'model = "conv"\ntraining = { epochs = 1 }'
)
REAL = REAL.replace("[[attack]]", '[[attack]]\nevaluators = ["mean"]').replace('"scripted"', '"dying"')
DYING, OTHER = "grids/none/dying/0", "grids/none/by-label/0"


@pytest.fixture
def real(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.Popen[str]]:
    """Start ``mi bench`` on a suite whose first attack dies or waits, in a process of its own."""
    site.install("mi-toy", PLUGIN)
    path = tmp_path / "real.toml"
    path.write_text(REAL)
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOY_NOTE", str(tmp_path / "note.txt"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.path), str(ROOT)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(*options: str) -> subprocess.Popen[str]:
        arguments = ["bench", str(path), "-o", str(tmp_path / "out"), "--device", "cpu", *options]
        return subprocess.Popen(
            [sys.executable, "-m", "micore", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    return start


def finished(process: subprocess.Popen[str]) -> tuple[int, str, dict[str, dict[str, Any]]]:
    out, err = process.communicate(timeout=200)
    rows = {row["name"]: row for row in json.loads(out)["rows"]} if out.startswith("{") else {}
    return process.returncode, err, rows


def test_a_row_that_is_killed_does_not_stop_the_others_and_goes_on_later(real: Any, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("die")
    code, _, rows = finished(real("--json"))
    assert code == CaseFailed.exit_code
    assert rows[DYING]["status"] == "failed"
    assert rows[DYING]["error"].startswith("the process was killed by SIGKILL")
    assert rows[OTHER]["status"] == "finished"
    assert 50e6 < rows[OTHER]["peak_memory_bytes"]["process"] < 5e9
    assert [figure["name"] for figure in rows[OTHER]["figures"]] == ["mean"]
    log = next((tmp_path / "out" / "rows").glob("grids-none-dying-0*/log.txt"))
    assert [line.split()[2] for line in log.read_text().splitlines() if line.startswith("$")] == ["attack"]
    (tmp_path / "note.txt").unlink()
    code, err, rows = finished(real("--json"))
    assert code == 0, err
    assert rows[DYING]["status"] == "finished"
    assert rows[DYING]["cases"] == {"done": 4, "total": 4}
    assert f"{OTHER}: is there already" in err
    assert [line.split()[2] for line in log.read_text().splitlines() if line.startswith("$")] == ["attack", "resume"]


def test_an_interrupted_benchmark_stops_its_row_cleanly_and_goes_on(real: Any, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("wait")
    process = real()
    deadline = time.monotonic() + 120
    while not (tmp_path / "note.reached").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, err, _ = finished(process)
    assert code == 130
    assert f"error: interrupted at {DYING}" in err
    assert err.endswith("hint: the same command continues\n")
    (run,) = (tmp_path / "out" / "rows").glob("grids-none-dying-0*/run")
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert not list((tmp_path / "out").rglob("*.part"))
    (tmp_path / "note.txt").unlink()
    code, err, rows = finished(real("--json", "--only", "dying"))
    assert code == 0, err
    assert rows[DYING]["status"] == "finished"
