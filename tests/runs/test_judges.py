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
from micore.runs import Run, judges
from micore.runs.evaluation import _spec, chosen_evaluators, evaluate_run
from micore.runs.judges import describe_judge, evaluator_models, independence, open_judge
from micore.runs.judging import judge
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


def evaluator_model(*arguments):
    (judge,) = evaluator_models(*arguments)
    return judge


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


@pytest.mark.usefixtures("two_more_models")
def test_several_judges_differ_in_architecture_and_seed_as_long_as_they_can(plugins, bundle, dataset, monkeypatch):
    found = evaluator_models(plugins, RUNTIME, DATA, dataset, bundle, None, 3)
    assert [judge.card.model.name for judge in found] == ["mlp", "wide", "mlp"]
    assert len({judge.card.seed for judge in found} | {bundle.card.seed}) == 4
    assert len({judge.fingerprint for judge in found}) == 3
    assert all(independence(judge, bundle).facts["architecture"] for judge in found)
    monkeypatch.setattr(judges, "train_on", lambda *_, **__: pytest.fail("must come from the cache"))
    again = evaluator_models(plugins, RUNTIME, DATA, dataset, bundle, None, 2)
    assert [judge.fingerprint for judge in again] == [judge.fingerprint for judge in found[:2]]


@pytest.mark.usefixtures("two_more_models")
def test_a_judge_of_an_architecture_is_the_same_for_all_targets(plugins, bundle, dataset):
    wide = replace(bundle, card=replace(bundle.card, model=PluginUse(name="wide")))
    for_conv = evaluator_models(plugins, RUNTIME, DATA, dataset, bundle, None, 2)
    for_wide = evaluator_models(plugins, RUNTIME, DATA, dataset, wide, None, 2)
    assert [judge.card.model.name for judge in for_wide] == ["conv", "mlp"]
    assert for_wide[1].fingerprint == for_conv[0].fingerprint


@pytest.mark.usefixtures("two_more_models")
def test_the_users_judge_is_the_first_and_its_architecture_is_used(plugins, bundle, dataset, tmp_path):
    path = tmp_path / "judge.safetensors"
    given = toys.toy_bundle(plugins, model="mlp", seed=9)
    given.save(path)
    found = evaluator_models(plugins, RUNTIME, DATA, dataset, bundle, str(path), 3)
    assert found[0].fingerprint == given.fingerprint
    assert [judge.card.model.name for judge in found] == ["mlp", "wide", "mlp"]
    assert found[2].card.seed != 9


@pytest.fixture
def two_more_models(plugins, monkeypatch):
    """Let the second architecture be known by a further name."""
    entries = plugins.entries

    def more(kind=None, modality=None):
        found = entries(kind, modality)
        spare = [replace(e, spec=replace(e.spec, name="wide")) for e in found if e.spec.name == "mlp"]
        return [*found, *(spare if kind == "model" else [])]

    monkeypatch.setattr(plugins, "entries", more)


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
    fresh = opened.fresh(3)
    assert fresh(opened.adapter(torch.zeros(2, 1, 4, 4))).shape == (2, 3)
    assert any(parameter.requires_grad for parameter in fresh.parameters())
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


USES = (PluginUse(name="judged"), PluginUse(name="mean"))


@pytest.mark.usefixtures("two_more_models")
def test_every_judge_is_asked_and_its_figures_carry_its_identity(launch, plugins):
    run = launch(evaluators=USES, judges=2)
    named = run.judges()
    assert list(named) == ["evaluator-model", "evaluator-model-2"]
    assert [judge["model"] for judge in named.values()] == ["mlp", "wide"]
    identities = [judge["identity"] for judge in named.values()]
    found = [item for item in run.measurements() if item.subject == "attack"]
    assert [item.evaluator for item in found] == ["judged@0", f"judged@{identities[1]}", "mean@0"]
    alone = launch("alone", evaluators=USES)
    first = [item for item in run.measurements() if item.evaluator != f"judged@{identities[1]}"]
    assert first == alone.measurements(), "a second judge changes nothing of the first one's figures"


@pytest.mark.usefixtures("two_more_models")
def test_an_evaluator_may_ask_all_judges_together(launch, plugins):
    uses = (PluginUse(name="panel"), *USES)
    run = launch(evaluators=uses, judges=3)
    identities = [judge["identity"] for judge in run.judges().values()]
    together = "panel@" + "-".join(identity[:6] for identity in identities)
    found = [item.evaluator for item in run.measurements() if item.subject == "attack"]
    assert found == [together, "judged@0", *(f"judged@{identity}" for identity in identities[1:]), "mean@0"]
    by_one = judge(plugins, run.directory, evaluators=USES, judges=1, device="cpu")
    assert [each["identity"] for each in by_one.judges().values()] == identities, "the panel's figures are still there"
    again = judge(plugins, run.directory, evaluators=uses[:1], judges=4, device="cpu")
    panels = [item.evaluator for item in again.measurements() if item.evaluator.startswith("panel")]
    assert all(one.startswith(f"{together}-") for one in panels)


@pytest.mark.parametrize("judges", [1, 2])
def test_too_few_judges_for_a_panel_are_refused_before_anything_is_done(launch, plugins, judges):
    uses = (PluginUse(name="mean"), PluginUse(name="panel"))
    with pytest.raises(UsageError, match=f"'panel' judges with at least 3 .*; this run has {judges}") as caught:
        launch(evaluators=uses, judges=judges)
    assert caught.value.hint.startswith("--judges 3")
    assert not (cache() / "evaluators").exists()
    run = launch("other", evaluators=USES[1:], judges=judges)
    with pytest.raises(UsageError, match="'panel' judges with at least 3"):
        judge(plugins, run.directory, evaluators=uses, device="cpu")


def test_a_reference_with_two_judges_has_no_panel(dataset):
    reference = Reference(modality=ToyModality(), dataset=dataset, target=None, evaluator_models=(None, None))
    with pytest.raises(ModelError, match="at least 3 evaluator models, not 2") as caught:
        reference.panel()
    assert caught.value.hint == "--judges 3"


@pytest.mark.usefixtures("two_more_models")
def test_figures_that_ask_no_judge_come_once(launch, monkeypatch):
    monkeypatch.setattr(toys.ModelEvaluator, "_values", toys.MeanEvaluator._values)
    run = launch(evaluators=USES, judges=2)
    assert [item.evaluator for item in run.measurements() if item.subject == "attack"] == ["judged@0", "mean@0"]


@pytest.mark.usefixtures("two_more_models")
def test_a_run_is_judged_by_more_and_by_fewer_judges_later(launch, plugins):
    run = launch(evaluators=USES)
    by_two = judge(plugins, run.directory, evaluators=USES, judges=2, device="cpu")
    assert [each["model"] for each in by_two.judges().values()] == ["mlp", "wide"]
    assert Run.open(run.directory).manifest["request"]["judges"] == 1
    by_one = judge(plugins, run.directory, evaluators=USES, device="cpu")
    assert [each["model"] for each in by_one.judges().values()] == ["mlp"]
    assert [item.evaluator for item in by_one.measurements() if item.subject == "attack"] == ["judged@0", "mean@0"]


@pytest.mark.usefixtures("two_more_models")
def test_an_earlier_judge_is_named_as_long_as_a_figure_is_its_own(launch, plugins, tmp_path):
    run = launch(evaluators=USES)
    first = run.judges()["evaluator-model"]
    items = [replace(item, evaluator=f"other@{first['identity']}") for item in run.measurements()]
    run.write_measurements([*run.measurements(), *items], run.judges())
    given = toys.toy_bundle(plugins, model="mlp", seed=9)
    given.save(tmp_path / "judge.safetensors")
    path = str(tmp_path / "judge.safetensors")
    again = judge(plugins, run.directory, evaluators=USES, evaluator_model=path, device="cpu")
    assert [each["fingerprint"] for each in again.judges().values()] == [given.fingerprint, first["fingerprint"]]
    unasked = judge(plugins, run.directory, evaluators=USES[1:], device="cpu")
    assert list(unasked.judges()) == ["evaluator-model", "evaluator-model-2"]


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
