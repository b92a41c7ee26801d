"""What MLflow is told of a run, over two sittings and two processes, and what it is not told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as Tracked

from mi_tracker_mlflow import plugin, recording
from micore.kit.tracking import figures, parameters
from micore.runs import Run
from micore.testing.toy_runs import ToyRuns

RANKS = """
import sys
from pathlib import Path
from micore.testing.toy_runs import ToyRuns
from mi_tracker_mlflow import plugin
ToyRuns(Path(sys.argv[1]), {"tracker-mlflow": plugin}).attack("ranks")
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of files, asked for."""
    place = tmp_path / "mlflow"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv(recording.ASKED, place.as_uri())
    recording._recording.cache_clear()
    yield place
    recording._recording.cache_clear()


@pytest.fixture
def tracked(store: Path) -> Callable[[], list[Tracked]]:
    """Ask what the store has."""

    def ask() -> list[Tracked]:
        client = MlflowClient(store.as_uri())
        experiment = client.get_experiment_by_name(recording.EXPERIMENT)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    return ask


def toy_runs(tmp_path: Path, reports: list[str] | None = None) -> ToyRuns:
    report = (lambda text: pytest.fail(text)) if reports is None else reports.append
    return ToyRuns(tmp_path, {"tracker-mlflow": plugin}, report)


def files(store: Path, run: Tracked) -> set[str]:
    return {item.path for item in MlflowClient(store.as_uri()).list_artifacts(run.info.run_id)}


def steps(store: Path, run: Tracked, name: str) -> list[int]:
    return [item.step for item in MlflowClient(store.as_uri()).get_metric_history(run.info.run_id, name)]


def test_a_run_is_sent_with_figures_floors_cost_and_report(tmp_path, store, tracked):
    run = toy_runs(tmp_path).attack()
    (found,) = tracked()
    assert (found.info.run_name, found.info.status) == (run.id, "FINISHED")
    assert found.data.params == parameters(run)
    sent = {name: value for name, value in found.data.metrics.items() if name != "case/score"}
    assert sent == pytest.approx(figures(run))
    measured = {item.subject: item for item in run.measurements()}
    assert sent["toy-contrast/attack/value"] == pytest.approx(measured["attack"].value)
    assert sent["toy-contrast/attack/low"] == pytest.approx(measured["attack"].interval.low)
    assert sent["toy-contrast/floor/prior-samples/value"] == pytest.approx(measured["prior-samples"].value)
    assert sent["toy-contrast/ceiling/holdout/high"] == pytest.approx(measured["holdout"].interval.high)
    assert sent["ledger/total/queries"] == 8
    assert steps(store, found, "case/score") == [0, 1, 2, 3]
    assert files(store, found) == set(recording.FILES)


def test_samples_are_sent_only_when_asked_for(tmp_path, store, tracked, monkeypatch):
    monkeypatch.setenv(recording.SAMPLES, "1")
    toy_runs(tmp_path).attack()
    assert files(store, tracked()[0]) == {*recording.FILES, "report.html"}


@pytest.mark.parametrize("answer", [None, "", "0"])
def test_nothing_is_sent_unless_asked_for(tmp_path, store, monkeypatch, answer):
    """Also not where MLflow's own variable is set for other programs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    if answer is None:
        monkeypatch.delenv(recording.ASKED)
    else:
        monkeypatch.setenv(recording.ASKED, answer)
    toy_runs(tmp_path).attack()
    assert not store.exists()


def test_1_means_the_server_that_mlflow_is_set_to(tmp_path, store, tracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.setenv(recording.ASKED, "1")
    toy_runs(tmp_path).attack()
    assert len(tracked()) == 1


def test_a_resumed_run_goes_on(tmp_path, store, tracked):
    run = toy_runs(tmp_path).attack(cases=1)
    (first,) = tracked()
    assert first.data.tags[recording.STATUS] == "budget"
    assert first.data.metrics["cases/budget"] == 3
    recording._recording.cache_clear()  # as in another process
    toy_runs(tmp_path).resume(run)
    (second,) = tracked()
    assert second.info.run_id == first.info.run_id
    assert second.data.tags[recording.STATUS] == "finished"
    assert second.data.params == first.data.params
    assert second.data.metrics["cases/budget"] == 0
    assert steps(store, second, "case/score") == [0, 1, 2, 3]
    assert steps(store, second, "toy-contrast/attack/value") == [1, 4]


def test_another_run_is_another_run(tmp_path, tracked):
    runs = toy_runs(tmp_path)
    runs.attack("one")
    runs.attack("two")
    assert {run.info.run_name for run in tracked()} == {"one", "two"}


def test_two_processes_speak_to_one_run(tmp_path, store, tracked):
    toy_runs(tmp_path).attack("first")  # which trains the target
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "program.py").write_text(RANKS)
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [*launcher, str(tmp_path / "program.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "observer" not in done.stderr
    assert sorted(run.info.run_name for run in tracked()) == ["first", "ranks"]
    ranks = next(run for run in tracked() if run.info.run_name == "ranks")
    assert sorted(steps(store, ranks, "case/score")) == [0, 1, 2, 3]
    assert ranks.info.status == "FINISHED"


# a server that is away ------------------------------------------------------------------------------------


def test_a_server_that_is_away_stops_nothing(tmp_path, store, monkeypatch):
    expected = ToyRuns(tmp_path / "plain").attack()
    monkeypatch.setenv(recording.ASKED, "http://127.0.0.1:9")
    reports: list[str] = []
    run = toy_runs(tmp_path, reports).attack()
    assert run.manifest["status"] == "finished"
    assert run.measurements() == expected.measurements()
    assert ["mi_run_started" in text or "mi_run_finished" in text for text in reports] == [True, True]


def test_a_server_that_comes_back_gets_the_whole_run(tmp_path, store, tracked, monkeypatch):
    reports: list[str] = []
    runs = toy_runs(tmp_path, reports)
    real, away = recording._experiment, [True]

    def flaky(client):
        if away[0]:
            raise ConnectionError("away")
        return real(client)

    monkeypatch.setattr(recording, "_experiment", flaky)
    done = recording.case_done

    def back_after_the_last_case(run, case, reconstruction):
        done(run, case, reconstruction)
        away[0] = case.id != "class-3"

    monkeypatch.setattr(recording, "case_done", back_after_the_last_case)
    run = runs.attack()
    assert reports == ["observer tracker-mlflow:tracker-mlflow failed in mi_run_started: ConnectionError: away"]
    (found,) = tracked()
    assert found.data.params == parameters(run)
    assert found.data.metrics["cases/done"] == 4
    assert "case/score" not in found.data.metrics


def test_mlflow_is_told_to_be_quick_and_silent_and_forgets_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    with recording._mannered():
        inside = {name: os.environ[name] for name in recording.MANNERS}
    assert inside == {**recording.MANNERS, "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    assert {name for name in recording.MANNERS if name in os.environ} == {"MLFLOW_HTTP_REQUEST_TIMEOUT"}


def test_names_are_made_of_allowed_characters():
    assert recording._allowed("accuracy@12/attack (best)") == "accuracy_12/attack _best_"


def test_a_run_without_a_reconstruction_has_no_figures(tmp_path, tracked):
    run: Run = toy_runs(tmp_path).attack(cases=0)
    (found,) = tracked()
    assert run.manifest["status"] == "budget"
    assert found.data.metrics["cases/budget"] == 4
    assert not [name for name in found.data.metrics if name.startswith("toy-contrast")]
