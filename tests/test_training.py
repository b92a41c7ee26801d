"""``mi train``: the bundle says how it was made, and is the same every time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from micore import training as module
from micore.artifacts import PluginUse
from micore.data import DataRequest
from micore.errors import ModelError, UnknownNameError
from micore.home import cache
from micore.kit.training import TrainingConfig
from micore.registry import Registry
from micore.runtime import Checkpoints, Runtime
from micore.testing.toys import ToyModality, ToySplit
from micore.training import measure, train
from tests import toys


@pytest.fixture(scope="module")
def plugins():
    return toys.registry()


@pytest.fixture
def own_home(monkeypatch, tmp_path):
    """A home of this test's own."""
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_card_says_all(plugins, monkeypatch):
    use = PluginUse(name="half")
    bundle = toys.toy_bundle(plugins, seed=3, defenses=[use])
    card = bundle.card
    assert (card.role, card.modality, card.model.name, card.seed) == ("classifier", "toy", "conv", 3)
    assert card.defenses == (PluginUse(name="half", config={"factor": 0.5}),)
    assert card.classes == tuple(f"spot-{label}" for label in range(4))
    assert card.data["uri"] == "grids"
    assert card.data["options"] == toys.SMALL
    assert card.training["epochs"] == 2
    assert card.training["seconds"] >= 0
    assert card.metrics.keys() == {
        "train_accuracy", "train_samples", "holdout_accuracy", "holdout_samples", "holdout_calibration_error",
        "holdout_score_change",
    }  # fmt: skip
    assert (card.metrics["train_samples"], card.metrics["holdout_samples"]) == (24, 32)
    assert "torch" in card.versions


def test_only_what_can_be_a_target_is_trained():
    data, registry = DataRequest.parse("digits", {}), Registry.discover()
    with pytest.raises(ModelError, match="'stylegan2' cannot be a target; its role is prior"):
        train(registry, Runtime(device=torch.device("cpu")), data=data, model=PluginUse(name="stylegan2"))


def test_equal_seeds_give_equal_models(plugins):
    before = torch.get_rng_state()
    one, same, other = (toys.toy_bundle(plugins, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_a_target_learns(plugins):
    data = DataRequest.parse("grids", toys.SMALL)
    config = TrainingConfig(epochs=40, batch_size=8, learning_rate=1e-2, augment="none")
    bundle = train(plugins, Runtime.create("cpu"), data=data, model=PluginUse(name="mlp"), training=config)
    assert bundle.card.metrics["holdout_accuracy"] > 0.8


def test_defaults_are_taken(plugins, monkeypatch):
    monkeypatch.setattr(module, "TrainingConfig", lambda: toys.QUICK)
    dataset = DataRequest.parse("bare:holdout", toys.SMALL).open(plugins)
    bundle = train(
        plugins, Runtime.create("cpu"), data=DataRequest.parse("bare:holdout"), model=PluginUse(name="conv"),
        dataset=dataset,
    )  # fmt: skip
    assert bundle.card.metrics.keys() == {"train_accuracy", "train_samples"}, "there is no holdout to measure"


def test_unlabelled_parts_are_not_measured(plugins):
    dataset = DataRequest.parse("grids", toys.SMALL).open(plugins)
    bundle = toys.toy_bundle(plugins)
    network, _ = module_of(plugins, bundle)
    unlabelled = ToySplit(dataset.split("private").samples)
    adapter = ToyModality().adapter(dataset.input)
    found = measure(network, adapter, dataset, unlabelled, Runtime.create("cpu"))
    assert found.keys() == {
        "holdout_accuracy", "holdout_samples", "holdout_calibration_error", "holdout_score_change",
    }  # fmt: skip


def module_of(plugins, bundle):
    from micore.models import restore_network

    return restore_network(plugins, bundle)


def test_an_unknown_model_is_named(plugins):
    with pytest.raises(UnknownNameError, match="'nope'"):
        train(plugins, Runtime.create("cpu"), data=DataRequest.parse("grids"), model=PluginUse(name="nope"))


def test_a_killed_training_goes_on_and_gives_the_same_model(plugins, own_home, monkeypatch):
    whole = toys.toy_bundle(plugins)
    monkeypatch.setattr(module, "Checkpoints", lambda path, interval_s: Checkpoints(path, interval_s=0))
    seen = []

    class Killing:
        """Stops after the first epoch."""

        def track(self, description, total):
            from contextlib import nullcontext

            return nullcontext(self.report)

        def report(self, done):
            seen.append(done)
            if done == 2 and not resumed:
                raise KeyboardInterrupt

    resumed = False
    runtime = Runtime.create("cpu", progress=Killing())
    data = DataRequest.parse("grids", toys.SMALL)
    arguments = {"data": data, "model": PluginUse(name="conv"), "training": toys.QUICK}
    with pytest.raises(KeyboardInterrupt):
        train(plugins, runtime, **arguments)
    assert len(list((cache() / "training").iterdir())) == 1
    resumed = True
    bundle = train(plugins, runtime, **arguments)
    assert seen == [1, 2, 2], "the first epoch was not done again"
    assert bundle.fingerprint == whole.fingerprint
    assert list((cache() / "training").iterdir()) == []


def test_checkpoints_of_other_trainings_are_not_taken(plugins, own_home):
    dataset = SimpleNamespace(fingerprint="f")

    def path(runtime=None, model="conv", config=toys.QUICK, defenses=(), role="classifier"):
        runtime = runtime or Runtime.create("cpu")
        return module._checkpoints(runtime, dataset, PluginUse(name=model), config, defenses, role)._path

    paths = [
        path(), path(model="mlp"), path(config=TrainingConfig()), path(role="evaluator"),
        path(defenses=(PluginUse(name="half"),)), path(Runtime.create("cpu", seed=1)),
        path(Runtime.create("cpu", "bf16")),
    ]  # fmt: skip
    assert len(set(paths)) == len(paths)
    assert path() == paths[0]
