"""What monitors observe of a run's queries, in its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from micore import runs
from micore.artifacts import PluginUse
from micore.registry import Registry
from micore.runs import Run
from micore.runs import runner as module
from micore.runs import session as session_module
from micore.threat import Budget
from tests import toys


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_report", lambda *_: None)
    monkeypatch.setattr(session_module, "versions", lambda *_: {})


@pytest.fixture(scope="module")
def watched(plugins: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a toy target that carries a monitor, and a defense of answers before it."""
    path = tmp_path_factory.mktemp("watched") / "target.safetensors"
    toys.toy_bundle(plugins, defenses=[PluginUse(name="half"), PluginUse(name="watch")]).save(path)
    return path


def monitors(run: Run) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = Run.open(run.directory).manifest["monitors"]
    return found


def test_a_run_tells_what_a_monitor_observed(launch: Callable[..., Run], watched: Path) -> None:
    run = launch(model=watched, attack="by-label")
    asked = run.manifest["ledger"]["total"]["queries"]
    assert asked == 8  # two samples of four classes
    assert monitors(run) == {"watch": [{"queries": asked, "largest": pytest.approx(0.5, abs=0.5)}]}


def test_a_monitor_sees_the_answers_as_they_are_given(launch: Callable[..., Run], watched: Path) -> None:
    (found,) = monitors(launch(model=watched, attack="by-label"))["watch"]
    assert 0 < float(str(found["largest"])) <= 0.5  # of scores that the defense before it has halved


def test_what_passes_the_network_itself_is_not_seen(launch: Callable[..., Run], watched: Path) -> None:
    run = launch(model=watched, attack="scripted")
    assert run.manifest["ledger"]["total"]["queries"] > 0
    assert monitors(run) == {}  # a monitor without findings is left out


def test_a_run_of_a_target_without_monitors_tells_of_none(launch: Callable[..., Run]) -> None:
    assert monitors(launch(attack="by-label")) == {}


def test_a_run_that_goes_on_adds_what_was_observed_since(
    launch: Callable[..., Run], watched: Path, plugins: Registry, tmp_path: Path
) -> None:
    launch("run", model=watched, attack="by-label", batch=1, budget=Budget(queries=4))
    run = runs.resume(plugins, tmp_path / "run", budget=Budget(queries=100))
    assert [found["queries"] for found in monitors(run)["watch"]] == [4, 4]
    assert run.manifest["ledger"]["total"]["queries"] == 8
