"""Evaluator models are trained once, are never the target, and say what they share with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from micore.artifacts import PluginUse
from micore.contracts import Reference
from micore.data import DataRequest
from micore.errors import ModelError, RunError, UnknownNameError, UsageError
from micore.home import cache
from micore.kit.training import TrainingConfig
from micore.runs import judges
from micore.runs.evaluation import _spec, chosen_evaluators, evaluate_run
from micore.runs.judges import describe_judge, evaluator_model, independence, open_judge
from micore.runtime import Runtime
from micore.testing.toys import ToyModality
from tests import toys

pytestmark = pytest.mark.usefixtures("home")
RUNTIME = Runtime.create("cpu")
DATA = DataRequest(uri="grids", options=toys.SMALL)


JUDGE_TRAINING = judges.judge_training
"""The real one, which the fixture below replaces."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(judges, "judge_training", lambda n: toys.QUICK)


@pytest.fixture
def dataset(plugins):
    return DATA.open(plugins)


def test_one_is_trained_with_another_architecture_and_cached(plugins, bundle, dataset, monkeypatch):
    judge = evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, None)
    assert judge.card.role == "evaluator"
    assert judge.card.model.name == "mlp"
    assert len(judge.card.classes) == 8
    monkeypatch.setattr(judges, "train_on", lambda *_, **__: pytest.fail("must come from the cache"))
    again = evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, None)
    assert again.fingerprint == judge.fingerprint
    assert again.source.startswith(str(cache()))


def test_every_seed_has_the_same_judge_and_every_data_set_its_own(plugins, bundle, dataset):
    judge = evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, None)
    seeded = evaluator_model(plugins, replace(RUNTIME, seed=1), DATA, dataset, bundle, None)
    larger = replace(DATA, options={**toys.SMALL, "seed": 4})
    other = evaluator_model(plugins, RUNTIME, larger, larger.open(plugins), bundle, None)
    assert seeded.fingerprint == judge.fingerprint
    assert other.fingerprint != judge.fingerprint
    assert len(list((cache() / "evaluators").iterdir())) == 2


def test_a_remote_target_takes_no_architecture_away(plugins, dataset):
    assert evaluator_model(plugins, RUNTIME, DATA, dataset, None, None).card.model.name == "conv"


def test_without_another_architecture_there_is_no_judge(plugins, bundle, dataset, monkeypatch):
    monkeypatch.setattr(plugins, "entries", lambda *_: [])
    with pytest.raises(UnknownNameError, match="no installed model can judge modality 'toy'") as caught:
        evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, None)
    assert "--evaluator-model" in caught.value.hint


def test_a_model_of_the_users(plugins, bundle, dataset, tmp_path):
    path = tmp_path / "judge.safetensors"
    given = toys.toy_bundle(plugins, model="mlp", seed=9)
    given.save(path)
    found = evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, str(path))
    assert found.fingerprint == given.fingerprint
    assert not (cache() / "evaluators").exists()


def test_the_target_may_not_judge_itself(plugins, bundle, dataset, shared_target):
    with pytest.raises(ModelError, match="is the target itself") as caught:
        evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, str(shared_target))
    assert "another --evaluator-model" in caught.value.hint


def test_a_judge_of_other_classes_is_refused(plugins, bundle, dataset, tmp_path):
    path = tmp_path / "judge.safetensors"
    toys.toy_bundle(plugins, n_classes=3).save(path)
    with pytest.raises(ModelError, match="judges 3 classes that do not begin with the data set's 4"):
        evaluator_model(plugins, RUNTIME, DATA, dataset, bundle, str(path))


def test_an_open_judge_is_frozen_and_gives_its_reservations(plugins, bundle):
    judge = toys.toy_bundle(plugins, seed=0, model="mlp")
    opened = open_judge(plugins, RUNTIME, judge, bundle, ToyModality())
    assert not opened.module.training
    assert not any(parameter.requires_grad for parameter in opened.module.parameters())
    assert opened.module(opened.adapter(torch.zeros(2, 1, 4, 4))).shape == (2, 4)
    assert opened.identity == judge.fingerprint[:12]
    assert opened.notes == (
        "evaluator model shares its seed with the target", "evaluator model shares its augmentation with the target",
    )  # fmt: skip


def test_independence_is_told_fact_by_fact(plugins, bundle):
    same = independence(bundle, bundle)
    assert not any(same.facts.values())
    assert not same.independent
    assert len(same.notes) == 4
    card = replace(bundle.card, model=PluginUse(name="mlp"), seed=5, training={"augment": "strong"})
    other = replace(bundle, card=card)
    assert independence(other, bundle).independent
    assert independence(other, bundle).notes == ()
    assert independence(bundle, None).facts == {}


def test_a_description_of_a_judge(plugins, bundle):
    judge = toys.toy_bundle(plugins, model="mlp", seed=2)
    facts = describe_judge(judge, bundle)
    assert (facts["model"], facts["seed"], facts["fingerprint"]) == ("mlp", 2, judge.fingerprint)
    assert facts["independence"] == {"weights": True, "architecture": True, "seed": True, "augmentation": False}
    assert facts["independent"] is False


# choosing and running evaluators ------------------------------------------------------------------


def test_evaluators_are_chosen(plugins):
    assert [spec.name for spec, _ in chosen_evaluators(plugins, "toy", "class", None)] == ["mean"]
    assert [spec.name for spec, _ in chosen_evaluators(plugins, "toy", "prompt", None)] == []
    uses = [PluginUse(name="judged"), PluginUse(name="mean")]
    chosen = chosen_evaluators(plugins, "toy", "class", uses)
    assert [type(evaluator) for _, evaluator in chosen] == [toys.ModelEvaluator, toys.MeanEvaluator]
    assert chosen_evaluators(plugins, "toy", "class", []) == []
    for name, modality in (("stranger", "toy"), ("mean", "other")):
        with pytest.raises(UsageError, match=f"'{name}' does not judge goal 'class'"):
            chosen_evaluators(plugins, modality, "class", [PluginUse(name=name)])


def test_only_evaluators_evaluate(plugins):
    with pytest.raises(TypeError, match="conv is no evaluator"):
        _spec(plugins.find("model", "conv"))


def test_a_reference_without_a_judge_says_so(plugins, dataset):
    with pytest.raises(ModelError, match="needs an evaluator model"):
        Reference(modality=ToyModality(), dataset=dataset, target=None).judge()


def test_a_run_judged_by_a_model_names_it(launch):
    run = launch(evaluators=(PluginUse(name="judged"), PluginUse(name="mean")))
    assert run.judges()["evaluator-model"]["model"] == "mlp"
    by_name = {(item.name, item.subject) for item in run.measurements()}
    assert {("judged", "attack"), ("judged", "holdout"), ("mean", "wrong-label")} <= by_name


def test_a_run_without_data_has_no_judge(launch, plugins, bundle, dataset):
    run = launch(attack="by-label")
    request = replace(toys.toy_request("t"), data=None)
    chosen = chosen_evaluators(plugins, "toy", "class", [PluginUse(name="judged")])
    common = {"dataset": dataset, "modality": ToyModality(), "target": bundle}
    with pytest.raises(RunError, match="names no data set"):
        evaluate_run(plugins, RUNTIME, run, request=request, evaluators=chosen, **common)
    run.collect([])
    assert evaluate_run(plugins, RUNTIME, run, request=request, evaluators=chosen, **common) == []


@pytest.mark.parametrize(("n_samples", "epochs"), [(10, 60), (1393, 60), (3200, 30), (1_000_000, 3)])
def test_small_data_are_seen_more_often(n_samples, epochs):
    training = JUDGE_TRAINING(n_samples)
    assert training.epochs == epochs
    assert training.augment == "strong"
    assert training.augment != TrainingConfig().augment, "judges are augmented unlike targets"
