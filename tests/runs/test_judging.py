"""``mi evaluate``: a run can be judged again, by the same and by others."""

from __future__ import annotations

import pytest

from micore.artifacts import PluginUse
from micore.errors import ModelError, RunError, TargetError
from micore.runs import Run, judges
from micore.runs.judging import judge
from tests import toys


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(judges, "judge_training", lambda n: toys.QUICK)


def figures(run: Run) -> dict:
    return {(item.name, item.subject): item.value for item in Run.open(run.directory).measurements()}


def test_further_evaluators_join_the_earlier_ones(launch, plugins):
    run = launch()
    before = figures(run)
    judged = judge(plugins, run.directory, evaluators=[PluginUse(name="judged")], device="cpu")
    assert figures(judged).items() >= before.items()
    assert ("judged", "attack") in figures(judged)
    assert judged.judges()["evaluator-model"]["model"] == "mlp"
    assert "judged" in (run.directory / "report.json").read_text()


def test_an_evaluator_that_runs_again_replaces_its_figures(launch, plugins, monkeypatch):
    run = launch()
    before = figures(run)
    judge(plugins, run.directory, evaluators=[PluginUse(name="judged")], device="cpu")
    values = toys.MeanEvaluator._values
    monkeypatch.setattr(toys.MeanEvaluator, "_values", lambda self, *a: values(self, *a) + 1)
    again = judge(plugins, run.directory, device="cpu")
    found = figures(again)
    assert all(found[key] == pytest.approx(value + 1) for key, value in before.items())
    assert ("judged", "attack") in found
    assert len(again.measurements()) == 2 * len(before)


def test_an_evaluator_that_fails_costs_no_other_its_figures(launch, plugins, monkeypatch):
    run = launch(evaluators=[PluginUse(name="judged")])
    before = figures(run)

    def fail(*_: object) -> None:
        raise TargetError("the address does not answer")

    monkeypatch.setattr(toys.ModelEvaluator, "_values", fail)
    with pytest.raises(TargetError):
        judge(plugins, run.directory, evaluators=[PluginUse(name="mean"), PluginUse(name="judged")], device="cpu")
    found = figures(run)
    assert found.items() >= before.items(), "the earlier figures of the one that failed stay"
    assert ("mean", "attack") in found
    assert ("mean", "attack") not in before


def test_the_request_of_the_run_stays(launch, plugins):
    run = launch()
    before = (run.directory / "run.json").read_bytes()
    judge(plugins, run.directory, evaluators=[], device="cpu")
    assert (run.directory / "run.json").read_bytes() == before


def test_another_evaluator_model(launch, plugins, tmp_path, shared_target):
    path = tmp_path / "judge.safetensors"
    given = toys.toy_bundle(plugins, model="mlp", seed=9)
    given.save(path)
    run = launch()
    use = [PluginUse(name="judged")]
    judged = judge(plugins, run.directory, evaluators=use, evaluator_model=str(path), device="cpu")
    assert judged.judges()["evaluator-model"]["fingerprint"] == given.fingerprint
    with pytest.raises(ModelError, match="the target itself"):
        judge(plugins, run.directory, evaluators=use, evaluator_model=str(shared_target), device="cpu")


def test_the_evaluator_model_of_a_run_is_found_from_anywhere(launch, plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = toys.toy_bundle(plugins, model="mlp", seed=9)
    given.save(tmp_path / "judge.safetensors")
    run = launch(evaluator_model="judge.safetensors")
    monkeypatch.chdir("/")
    judged = judge(plugins, run.directory, evaluators=[PluginUse(name="judged")], device="cpu")
    assert judged.judges()["evaluator-model"]["fingerprint"] == given.fingerprint


def test_what_is_no_run_is_not_judged(plugins, tmp_path):
    with pytest.raises(RunError, match="is no run directory"):
        judge(plugins, tmp_path)


def test_a_changed_target_is_not_judged_for_the_old_one(launch, plugins, bundle, tmp_path):
    path = tmp_path / "target.safetensors"
    bundle.save(path)
    run = launch(model=path, attack="by-label")
    toys.toy_bundle(plugins, seed=5).save(path)
    with pytest.raises(RunError, match="the target has changed"):
        judge(plugins, run.directory, device="cpu")
