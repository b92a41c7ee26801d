"""What a run needs is checked before anything is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from micore.artifacts import PluginUse
from micore.data import DataRequest
from micore.errors import (
    AccessDenied,
    ConfigError,
    DataError,
    ModelError,
    RuntimeUnavailable,
    UnknownNameError,
    UsageError,
)
from micore.runs.session import ACCELERATOR_TILE, CPU_TILE, _some, attack_spec, manifest, open_session
from micore.testing.devices import pretend_accelerator
from micore.threat import Access
from tests import toys


@pytest.fixture
def opened(plugins, shared_target):
    def session(**changes):
        return open_session(plugins, toys.toy_request(changes.pop("model", shared_target), **changes))

    return session


def test_a_session_has_all_parts(opened, bundle):
    session = opened(options={"steps": 3}, seed=7)
    assert session.spec.name == "scripted"
    assert session.attack.config.steps == 3
    assert session.loaded.fingerprint == bundle.fingerprint
    assert [case.label for case in session.cases] == [0, 1, 2, 3]
    assert session.target.access is Access.WHITE_BOX
    assert session.runtime.seed == 7
    assert len(session.public) == 96
    assert [spec.name for spec, _ in session.evaluators] == ["mean"]


def test_presets(opened):
    assert opened(preset="paper").attack.config.steps == 4
    assert opened(preset="paper", options={"steps": 1}).attack.config.steps == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"attack": "scriptd"}, UnknownNameError, "no attack is called"),
        ({"access": Access.SCORES}, AccessDenied, "needs white-box access; the run grants scores"),
        ({"options": {"stepz": 1}}, ConfigError, "attack 'scripted' has no option 'stepz'"),
        ({"preset": "none"}, ConfigError, "no preset"),
        ({"evaluators": (PluginUse(name="stranger"),)}, UsageError, "does not judge"),
        ({"device": "toaster"}, RuntimeUnavailable, "unknown device"),
        ({"model": "none.safetensors"}, ModelError, "does not exist"),
        ({"attack": "elsewhere"}, ModelError, "is for modality other; the target is toy"),
        ({"data": DataRequest(uri="grids", options={"n_classes": 9})}, ModelError, "the target has 4 classes"),
        ({"data": DataRequest(uri="grids", options={"size": 0})}, DataError, "size"),
        ({"data": DataRequest(uri="bare:public", options=toys.SMALL)}, UsageError, "needs public data"),
        ({"choice": "x"}, UsageError, "no such cases"),
        ({"evaluator_model": "none.safetensors"}, ModelError, "does not exist"),
    ],
)
def test_what_cannot_work_is_refused(opened, changes, error, message):
    with pytest.raises(error, match=message):
        opened(**changes)


def test_the_target_is_refused_as_its_own_judge_before_the_attack(opened, shared_target):
    with pytest.raises(ModelError, match="is the target itself"):
        opened(evaluator_model=str(shared_target))


def test_the_bundles_data_are_taken_unless_others_are_given(opened):
    assert opened().request.data == DataRequest(uri="grids", options=toys.SMALL)
    changed = opened(data=DataRequest(uri="grids", options={"seed": 5}))
    assert changed.request.data.options == {**toys.SMALL, "seed": 5}
    others = opened(attack="by-label", data=DataRequest(uri="bare:public", options=toys.SMALL))
    assert others.request.data.uri == "bare:public"
    assert others.public is None


def test_a_bundle_that_names_no_data_needs_them(opened, bundle, tmp_path):
    path = tmp_path / "target.safetensors"
    replace(bundle, card=replace(bundle.card, data={})).save(path)
    with pytest.raises(UsageError, match="the target names none") as caught:
        opened(model=path)
    assert "--data" in caught.value.hint
    session = opened(model=path, data=DataRequest(uri="grids", options=toys.SMALL))
    assert manifest(session)["data"]["same_as_target"] is False


def test_other_data_are_noted(opened):
    facts = manifest(opened(data=DataRequest(uri="grids", options={"seed": 5})))
    assert facts["data"]["same_as_target"] is False
    assert facts["notes"] == ["the data set differs from the one that the target was trained on"]
    same = manifest(opened())
    assert same["data"]["same_as_target"] is True
    assert same["notes"] == []


def test_the_manifest_is_json_and_names_who_made_what(opened):
    import json

    facts = json.loads(json.dumps(manifest(opened(options={"steps": 3}))))
    assert facts["attack"]["config"]["steps"] == 3
    assert facts["attack"]["distribution"] == "toy-plugin"
    assert {row["status"] for row in facts["cases"]} == {"pending"}
    assert facts["access"] == {"granted": "white-box", "used": None}
    assert facts["hardware"]["tile"] == 4
    assert facts["target"]["card"]["model"]["name"] == "conv"


def test_the_tile_is_constant_for_a_device(opened):
    assert opened(tile=None).runtime.tile == CPU_TILE
    with pretend_accelerator():
        session = opened(tile=None, device="cuda")
        assert session.runtime.tile == ACCELERATOR_TILE
        assert session.runtime.device.type == "cuda"


def test_only_attacks_attack(plugins):
    with pytest.raises(TypeError, match="conv is no attack"):
        attack_spec(plugins.find("model", "conv"))


def test_long_lists_of_classes_are_cut():
    assert _some(["a", "b"], 2) == "a, b"
    assert _some(["a", "b", "c"], 2) == "a, b, ..."


def test_the_root_is_that_of_the_targets_own_data_too(opened, monkeypatch):
    seen = []
    monkeypatch.setattr(DataRequest, "under", lambda self, root: (seen.append(root), self)[1])  # grids lie nowhere
    opened(data_root="/somewhere")
    assert seen == ["/somewhere"]
