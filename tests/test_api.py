"""The Python API does what the command line does, and costs nothing to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from micore import api
from micore.artifacts import Bundle, PluginUse
from micore.errors import AccessDenied, BudgetExceeded, ConfigError, UsageError
from micore.home import cache, home
from micore.runs import Run, problem
from micore.versions import versions
from tests import toys

TRAINING = {"epochs": 2, "batch_size": 8, "augment": "none"}


@pytest.fixture(scope="module")
def plugins():
    return toys.registry()


@pytest.fixture
def target(plugins, tmp_path) -> Path:
    path = tmp_path / "target.safetensors"
    api.train(
        data="grids", model="conv:width=4", output=path, defenses=["half:factor=0.9"], data_options=toys.SMALL,
        training=TRAINING, seed=2, device="cpu", registry=plugins,
    )  # fmt: skip
    return path


def test_train_returns_and_writes_the_bundle(plugins, target):
    card = Bundle.load(target).card
    assert card.model == PluginUse(name="conv", config={"width": 4})
    assert card.defenses == (PluginUse(name="half", config={"factor": 0.9}),)
    assert (card.seed, card.training["epochs"]) == (2, 2)


def test_train_writes_nothing_without_a_place(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = api.train(
        data="grids", model="conv", data_options=toys.SMALL, training=TRAINING, device="cpu", registry=plugins
    )
    assert bundle.card.model.name == "conv"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="training has no option 'epoch'"):
        api.train(data="grids", model="conv", training={"epoch": 2}, device="cpu", registry=plugins)


def test_attack_evaluate_resume_compare(plugins, target, tmp_path):
    run = api.attack(
        "scripted", model=target, classes="0,1", output=tmp_path / "run", access="white-box",
        budget_queries=10, preset="smoke", options={"restarts": 3}, evaluators=["mean"], device="cpu", registry=plugins,
        data="grids", data_options=toys.SMALL,
    )  # fmt: skip
    assert isinstance(problem(run), BudgetExceeded)
    assert run.manifest["request"]["data"] == {"uri": "grids", "options": toys.SMALL}
    with pytest.raises(UsageError, match="must be positive"):
        api.attack("scripted", model=target, budget_seconds=0, registry=plugins)


def test_a_whole_story(plugins, target, tmp_path):
    run = api.attack(
        "scripted", model=target, classes="0,1", output=str(tmp_path / "run"), preset="smoke", device="cpu",
        registry=plugins,
    )  # fmt: skip
    assert problem(run) is None
    assert len(run.manifest["cases"]) == 2
    assert run.manifest["request"]["evaluators"] is None
    judged = api.evaluate(run.directory, evaluators=["mean"], registry=plugins)
    assert judged.measurements() == run.measurements()
    assert api.evaluate(run.directory, registry=plugins).measurements() == run.measurements()
    assert problem(api.resume(str(run.directory), registry=plugins)) is None
    api.attack("by-label", model=target, output=tmp_path / "b", classes="0,1", device="cpu", registry=plugins)
    assert isinstance(api.compare(run.directory, str(tmp_path / "b")), api.runs.Comparison)
    assert Run.open(run.directory).manifest["status"] == "finished"


def test_several_judges(plugins, target, tmp_path, monkeypatch):
    from micore.runs import judges

    monkeypatch.setattr(judges, "judge_training", lambda n: toys.QUICK)
    run = api.attack(
        "by-label", model=target, output=tmp_path / "run", evaluators=["judged"], judges=2, device="cpu",
        registry=plugins,
    )  # fmt: skip
    assert run.manifest["request"]["judges"] == 2
    assert len(run.judges()) == len({item.evaluator for item in run.measurements()}) == 2
    assert len(api.evaluate(run.directory, evaluators=["judged"], judges=1, registry=plugins).judges()) == 1
    assert len(api.evaluate(run.directory, evaluators=["judged"], registry=plugins).judges()) == 2


def test_access_is_named_as_on_the_command_line(plugins, target, tmp_path):
    with pytest.raises(UsageError, match="unknown access 'root'"):
        api.attack("scripted", model=target, access="root", registry=plugins)
    with pytest.raises(AccessDenied):
        api.attack("scripted", model=target, access="label", device="cpu", registry=plugins)


def test_each_function_finds_the_installed_plugins_itself(monkeypatch, plugins, target, tmp_path):
    monkeypatch.setattr(api.Registry, "discover", lambda: plugins)
    bundle = api.train(data="grids", model="conv", data_options=toys.SMALL, training=TRAINING, device="cpu")
    bundle.save(tmp_path / "t.safetensors")
    judge = str(tmp_path / "judge.safetensors")
    api.train(data="grids", model="mlp", data_options=toys.SMALL, training=TRAINING, device="cpu", output=judge)
    run = api.attack(
        "by-label", model=tmp_path / "t.safetensors", output=tmp_path / "run", device="cpu", evaluator_model=judge
    )
    assert run.manifest["request"]["evaluator_model"] == judge
    assert problem(api.resume(run.directory)) is None
    assert api.evaluate(run.directory).measurements() == run.measurements()


def test_importing_micore_does_not_import_torch():
    code = "import micore, sys; assert 'torch' not in sys.modules; micore.train; print(micore.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# where things are kept, and with what versions -----------------------------------------------------


def test_home_and_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MI_HOME", "~/mi")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (home(), cache()) == (tmp_path / "mi", tmp_path / "mi" / "cache")
    monkeypatch.setenv("MI_HOME", " ")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / ".local/share/micore"
    assert cache() == tmp_path / "cache" / "micore"


def test_versions_of_what_is_installed():
    found = versions("pluggy", "no-such-distribution")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "pluggy", "safetensors"} <= found.keys()
    assert "no-such-distribution" not in found
