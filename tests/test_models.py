"""From names and bundles to networks, with one clear error for each thing that does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from micore.artifacts import PluginUse
from micore.errors import ConfigError, ModelError, UnknownNameError, UsageError
from micore.external import SourceRequest
from micore.inputs import InputSpec
from micore.models import build_network, load_defenses, load_modality, load_target, open_target, restore_network
from micore.runtime import Runtime
from micore.testing.toys import ToyModality
from micore.threat import Access, Ledger
from tests import toys

SPEC = InputSpec(shape=(1, 4, 4))
RUNTIME = Runtime(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def plugins():
    return toys.registry()


@pytest.fixture(scope="module")
def bundle(plugins):
    defenses = [PluginUse(name="tail"), PluginUse(name="half", config={"factor": 0.25})]
    return toys.toy_bundle(plugins, defenses=defenses)


def test_modality(plugins):
    assert isinstance(load_modality(plugins, "toy"), ToyModality)


def test_defenses_are_built_in_order_with_their_configs(plugins):
    uses = [PluginUse(name="half", config={"factor": 2}), PluginUse(name="tail")]
    half, tail = load_defenses(plugins, uses, "toy")
    assert half.config.factor == 2
    assert isinstance(tail, toys.TailDefense)


@pytest.mark.parametrize(
    ("uses", "error", "message"),
    [
        ([PluginUse(name="half"), PluginUse(name="half")], UsageError, "named twice: half, half"),
        ([PluginUse(name="alien")], UsageError, "is for modality other, not toy"),
        ([PluginUse(name="hal")], UnknownNameError, "no defense is called 'hal'"),
        ([PluginUse(name="half", config={"factr": 1})], ConfigError, "defense 'half' has no option 'factr'"),
    ],
)
def test_defenses_that_do_not_fit(plugins, uses, error, message):
    with pytest.raises(error, match=message):
        load_defenses(plugins, uses, "toy")


def test_an_architecture_takes_its_arguments_and_its_defenses_structure(plugins):
    plain = build_network(plugins, PluginUse(name="mlp", config={"width": 5}), 4, SPEC, [])
    assert plain(torch.zeros(2, 1, 4, 4)).shape == (2, 4)
    assert plain[1].out_features == 5
    defended = build_network(
        plugins, PluginUse(name="mlp"), 4, SPEC, load_defenses(plugins, [PluginUse(name="tail")], "toy")
    )
    assert isinstance(defended[1], nn.Linear)


@pytest.mark.parametrize(
    ("use", "spec", "error", "message"),
    [
        (PluginUse(name="conf"), SPEC, UnknownNameError, "no model is called 'conf'"),
        (PluginUse(name="conv", config={"depth": 3}), SPEC, ModelError, "depth"),
        (PluginUse(name="rigid", config={"depth": 3}), SPEC, ModelError, "'rigid' does not take .*arguments: .*depth"),
        (PluginUse(name="conv"), InputSpec(shape=(3, 4)), ModelError, "toy models take"),
    ],
)
def test_architectures_that_do_not_fit(plugins, use, spec, error, message):
    with pytest.raises(error, match=message):
        build_network(plugins, use, 4, spec, [])


def test_a_bundle_is_restored_with_its_defenses(plugins, bundle):
    module, defenses = restore_network(plugins, bundle)
    state = module.state_dict()
    assert state.keys() == bundle.weights.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in bundle.weights.items())
    assert [type(defense) for defense in defenses] == [toys.TailDefense, toys.HalfDefense]
    assert defenses[1].config.factor == 0.25


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle: replace(bundle, card=replace(bundle.card, model=PluginUse(name="mlp"))),
        lambda bundle: replace(bundle, card=replace(bundle.card, classes=("a", "b"))),
        lambda bundle: replace(bundle, weights=dict(list(bundle.weights.items())[1:])),
        lambda bundle: replace(bundle, weights={**bundle.weights, "extra": torch.zeros(1)}),
    ],
)
def test_weights_that_do_not_fit(plugins, bundle, change):
    with pytest.raises(ModelError, match=r"^somewhere: weights do not fit architecture '(conv|mlp)'") as caught:
        restore_network(plugins, replace(change(bundle), source="somewhere"))
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_in_a_bundle(plugins, bundle):
    unknown = replace(bundle, card=replace(bundle.card, model=PluginUse(name="other-net")))
    with pytest.raises(UnknownNameError, match="no model is called 'other-net'"):
        restore_network(plugins, unknown)


def load(plugins, uri, **options):
    return load_target(plugins, SourceRequest(uri=uri, runtime=RUNTIME, options=options))


def test_bundles_come_from_paths_or_sources(plugins, bundle, tmp_path, monkeypatch):
    path = tmp_path / "target.safetensors"
    bundle.save(path)
    assert load(plugins, str(path)).fingerprint == bundle.fingerprint
    assert load(plugins, "mem:7").card.seed == 7
    monkeypatch.chdir(tmp_path)
    path.rename("mem:0")
    assert load(plugins, "mem:0").fingerprint == bundle.fingerprint, "a file goes before a scheme"
    with pytest.raises(UsageError, match="takes no --model-option"):
        load(plugins, "mem:0", timeout=3)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp:x", "no plugin loads targets from 'ftp'"),
        ("nowhere.safetensors", "does not exist"),
        ("C:/nowhere.safetensors", "does not exist"),
    ],
)
def test_targets_that_are_not_there(plugins, uri, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(plugins, uri)
    assert "ftp" not in uri or "mem" in caught.value.hint


def test_a_target_answers_with_its_defenses(plugins, bundle):
    target = open_target(
        plugins, bundle, access=Access.SCORES, ledger=Ledger(), runtime=RUNTIME, modality=ToyModality()
    )
    samples = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    scores = target.scores(samples)
    assert torch.allclose(scores.sum(dim=1), torch.full((3,), 0.25))
    assert target.classes == bundle.card.classes
    assert target.input_spec == bundle.card.input
