"""What TensorBoard can show of a run, over two sittings and two processes, and what it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mi_tracker_tensorboard import events, plugin
from micore.kit.tracking import figures, parameters
from micore.testing.toy_runs import ToyRuns

RANKS = """
import sys
from pathlib import Path
from micore.testing.toy_runs import ToyRuns
from mi_tracker_tensorboard import plugin
ToyRuns(Path(sys.argv[1]), {"tracker-tensorboard": plugin}).attack("ranks")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for event files, asked for."""
    monkeypatch.setenv(events.PLACE, str(tmp_path / "events"))
    return tmp_path / "events"


def toy_runs(tmp_path: Path, reports: list[str] | None = None) -> ToyRuns:
    report = (lambda text: pytest.fail(text)) if reports is None else reports.append
    return ToyRuns(tmp_path, {"tracker-tensorboard": plugin}, report)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_a_run_is_written_with_curves_figures_floors_cost_and_report(tmp_path, place):
    run = toy_runs(tmp_path).attack()
    (folder,) = place.iterdir()
    assert folder.name.startswith(f"{run.id}-")
    found = read(folder)
    last = {name: found.Scalars(name)[-1].value for name in found.Tags()["scalars"]}
    assert {name: last[name] for name in figures(run)} == pytest.approx(figures(run))
    assert {name for name in figures(run) if name.startswith("toy-contrast/floor")}
    assert [event.step for event in found.Scalars("case/score")] == [0, 1, 2, 3]
    assert [event.step for event in found.Scalars("score/class-2")] == [0, 1]
    (text,) = found.Tensors("report/text_summary")
    assert (run.directory / "report.md").read_bytes() in text.tensor_proto.string_val
    (table,) = found.Tensors("parameters/text_summary")
    shown = table.tensor_proto.string_val[0].decode()
    assert [name for name, value in parameters(run).items() if f"| {name} | {value} |" not in shown] == []
    assert found.Tags()["images"] == []


def test_runs_can_be_compared_by_their_parameters(tmp_path, place):
    run = toy_runs(tmp_path).attack()
    (folder,) = place.iterdir()
    metadata = read(folder).summary_metadata["_hparams_/session_start_info"]
    shown = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert {name: value.string_value for name, value in shown.items()} == parameters(run)


def test_nothing_is_written_unless_asked_for(tmp_path, place, monkeypatch):
    monkeypatch.delenv(events.PLACE)
    toy_runs(tmp_path).attack()
    assert not place.exists()


def test_a_resumed_run_goes_on(tmp_path, place):
    run = toy_runs(tmp_path).attack(cases=1)
    events._writer.cache_clear()  # as in another process
    toy_runs(tmp_path).resume(run)
    (folder,) = place.iterdir()
    found = read(folder)
    assert [event.step for event in found.Scalars("case/score")] == [0, 1, 2, 3]
    assert [event.step for event in found.Scalars("toy-contrast/attack/value")] == [1, 4]
    assert [event.value for event in found.Scalars("cases/budget")] == [3, 0]


def test_two_processes_write_one_run(tmp_path, place):
    toy_runs(tmp_path).attack("first")  # which trains the target
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "program.py").write_text(RANKS)
    done = subprocess.run(
        [*launcher, str(tmp_path / "program.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "observer" not in done.stderr
    (folder,) = place.glob("ranks-*")
    assert len(list(folder.iterdir())) == 2
    found = read(folder)
    assert sorted(event.step for event in found.Scalars("case/score")) == [0, 1, 2, 3]
    assert len(found.Tensors("parameters/text_summary")) == 1
    assert len(found.Scalars("toy-contrast/attack/value")) == 1


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path, place):
    place.write_text("a file")
    reports: list[str] = []
    run = toy_runs(tmp_path, reports).attack()
    assert run.manifest["status"] == "finished"
    assert reports[0].startswith("observer tracker-tensorboard:tracker-tensorboard failed in mi_run_started")
    assert run.measurements() == ToyRuns(tmp_path / "plain").attack().measurements()
