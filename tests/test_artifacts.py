"""Bundles and states are read back as they were written; everything else is one clear error."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from micore.artifacts import (
    BUNDLE_SCHEMA,
    Bundle,
    Card,
    PluginUse,
    load_state,
    read_tensors,
    save_state,
    write_tensors,
)
from micore.errors import DataError, ModelError, RunError
from micore.inputs import InputSpec

CARD = Card(
    role="classifier", modality="toy", model=PluginUse(name="conv", config={"width": 8}),
    input=InputSpec(shape=(1, 4, 4), mean=(0.5,), std=(0.5,)), classes=("a", "b"), data={"uri": "grids"},
    defenses=(PluginUse(name="half", config={"factor": 0.5}),), metrics={"holdout_accuracy": 0.5}, seed=3,
    versions={"torch": "2"},
)  # fmt: skip
BUNDLE = Bundle(
    card=CARD, weights={"w": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(4), "e": torch.zeros(0)}
)


def test_a_bundle_round_trip(tmp_path):
    path = tmp_path / "deep" / "target.safetensors"
    BUNDLE.save(path)
    loaded = Bundle.load(path)
    assert loaded.card == CARD
    assert loaded.source == str(path)
    assert loaded.weights.keys() == BUNDLE.weights.keys()
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in BUNDLE.weights.items())
    assert loaded.fingerprint == BUNDLE.fingerprint
    assert os.listdir(path.parent) == [path.name]


def test_tied_and_sliced_tensors_can_be_written(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    write_tensors(tmp_path / "f", {"a": whole, "b": whole, "c": whole[:, 1]}, {"schema": "s"})
    tensors, _ = read_tensors(tmp_path / "f", "s")
    assert torch.equal(tensors["a"], tensors["b"])
    assert torch.equal(tensors["c"], whole[:, 1])


@pytest.mark.parametrize(
    "changed",
    [
        replace(BUNDLE, weights={**BUNDLE.weights, "w": torch.zeros(2, 3)}),
        replace(BUNDLE, weights={name: tensor for name, tensor in BUNDLE.weights.items() if name != "w"}),
        replace(BUNDLE, card=replace(CARD, defenses=())),
        replace(BUNDLE, card=replace(CARD, classes=("a", "c"))),
        replace(BUNDLE, card=replace(CARD, input=InputSpec(shape=(1, 4, 4)))),
    ],
)
def test_the_fingerprint_sees_what_the_model_does(changed):
    assert changed.fingerprint != BUNDLE.fingerprint


def test_the_fingerprint_sees_nothing_else():
    card = replace(CARD, metrics={}, seed=9, versions={}, training={"epochs": 3}, role="evaluator")
    assert replace(BUNDLE, card=card, source="elsewhere").fingerprint == BUNDLE.fingerprint


def foreign(path):
    save_file({"w": torch.zeros(2)}, path)


def truncated(path):
    BUNDLE.save(path)
    path.write_bytes(path.read_bytes()[:-4])


def header_only(path):
    BUNDLE.save(path)
    path.write_bytes(path.read_bytes()[:20])


def with_document(text):
    return lambda path: save_file({"w": torch.zeros(2)}, path, metadata={"micore": text})


def with_card(**changes):
    card = {**CARD.to_dict(), **changes}
    return with_document(json.dumps({key: value for key, value in card.items() if value is not None}))


BAD_FILES = {
    "missing": (lambda path: None, "does not exist"),
    "a directory": (lambda path: path.mkdir(), "is not a file"),
    "truncated": (truncated, "truncated or no safetensors"),
    "cut in the header": (header_only, "truncated or no safetensors"),
    "empty": (lambda path: path.write_bytes(b""), "truncated or no safetensors"),
    "text": (lambda path: path.write_text("hello, I am no model at all"), "truncated or no safetensors"),
    "foreign": (foreign, "was not written by micore"),
    "another schema": (with_document('{"schema": "micore.state/1"}'), "holds 'micore.state/1'"),
    "no schema": (with_document("{}"), "holds None"),
    "no JSON": (with_document("{"), "damaged"),
    "no object": (with_document("[1]"), "damaged"),
    "card without model": (with_card(model=None), "card is malformed"),
    "card with a model that is a text": (with_card(model="conv"), "card is malformed"),
    "card without classes": (with_card(classes=None), "card is malformed"),
    "card with more": (with_card(extra=1), "card is malformed"),
    "card with a bad input": (with_card(input={"shape": "wide"}), "is malformed"),
    "card with a text for input": (with_card(input="wide"), "malformed"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_bundle_is_one_clear_error(tmp_path, name):
    make, message = BAD_FILES[name]
    path = tmp_path / "target.safetensors"
    make(path)
    with pytest.raises(ModelError, match=message):
        Bundle.load(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".bin", ".ckpt", ".PT"])
def test_a_pickle_is_refused_unread(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="looks like a pickle") as caught:
        Bundle.load(path)
    assert "mi import" in caught.value.hint


def test_a_pickle_by_another_name_is_no_safetensors_file(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="no safetensors file"):
        Bundle.load(path)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(value=VALUES)
def test_state_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "state.safetensors"
    save_state(path, {"value": value, "tensor": torch.ones(2)}, {"note": 1})
    state, document = load_state(path)
    assert state["value"] == value
    assert torch.equal(state["tensor"], torch.ones(2))
    assert document == {"note": 1}


def test_names_with_slashes_do_not_run_into_each_other(tmp_path):
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "c": [torch.ones(1), {"d": torch.zeros(2)}]}
    save_state(tmp_path / "f", state)
    loaded, _ = load_state(tmp_path / "f")
    assert torch.equal(loaded["a/b"], torch.zeros(1))
    assert torch.equal(loaded["a"]["b"], torch.ones(1))
    assert torch.equal(loaded["c"][1]["d"], torch.zeros(2))


def test_an_optimizer_state_comes_back_with_its_integer_keys(tmp_path):
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_state(tmp_path / "f", optimizer.state_dict())
    loaded, _ = load_state(tmp_path / "f")
    assert loaded["state"].keys() == optimizer.state_dict()["state"].keys() == {0, 1}
    optimizer.load_state_dict(loaded)


def test_a_state_that_cannot_be_written_says_where(tmp_path):
    with pytest.raises(TypeError, match=r"not set .at /a/0"):
        save_state(tmp_path / "f", {"a": [{1}]})


def test_the_caller_says_what_a_damaged_file_is(tmp_path):
    for error in (RunError, DataError):
        with pytest.raises(error, match="does not exist"):
            load_state(tmp_path / "none", error)
    BUNDLE.save(tmp_path / "f")
    with pytest.raises(RunError, match=f"holds '{BUNDLE_SCHEMA}'"):
        load_state(tmp_path / "f")
