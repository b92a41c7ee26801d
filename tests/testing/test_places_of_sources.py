"""The sources of this repository open what they are made for as `mi check` wants it, without a network."""

from __future__ import annotations

import sys
from math import prod

import numpy
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from skops import io
from torch import nn

from micore.registry import Registry
from micore.testing.check import check_plugin
from micore.testing.lab import Lab

REGISTRY = Registry.discover()
CLASSES = 5
"""Of the digits, those that are private."""

FUNCTION = """
import torch

def answer(inputs):
    return torch.softmax(inputs.flatten(1)[:, :5], dim=1)
"""


def digits():
    return REGISTRY.load(REGISTRY.find("dataset", "digits"))(None)


def torchscript(place):
    shape = digits().input.shape
    module = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), CLASSES)).eval()
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, *shape)), str(place / "model.pt"))
    return {"location": str(place / "model.pt"), "data": "digits", "trust": True}


def export(place):
    shape = digits().input.shape
    module = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), CLASSES)).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(place / "model.pt2"))
    return {"location": str(place / "model.pt2"), "data": "digits", "trust": True}


def py(place):
    (place / "mi_answering.py").write_text(FUNCTION)
    return {"location": "mi_answering:answer", "data": "digits"}


def onnx_file(place):
    shape = digits().input.shape
    weights = numpy.random.default_rng(3).standard_normal((prod(shape), CLASSES)).astype(numpy.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(place / "model.onnx"))
    return {"location": str(place / "model.onnx"), "data": "digits"}


def sklearn(place):
    data = REGISTRY.load(REGISTRY.find("dataset", "made-people"))(None)
    names = numpy.array(data.classes)[data.private.labels.numpy()]
    io.dump(LogisticRegression(max_iter=500).fit(data.private.table.rows.numpy(), names), place / "model.skops")
    return {"location": str(place / "model.skops"), "data": "made-people"}


MADE = {"torchscript": torchscript, "export": export, "py": py, "onnx": onnx_file, "sklearn": sklearn}


@pytest.fixture(scope="module")
def shared_lab():
    return Lab(REGISTRY)


@pytest.mark.filterwarnings("ignore")  # of torch, about its own formats
@pytest.mark.parametrize("name", MADE)
def test_a_source_opens_its_places(name, tmp_path, monkeypatch, shared_lab):
    monkeypatch.syspath_prepend(tmp_path)
    report = check_plugin("source", name, registry=REGISTRY, lab=shared_lab, options=MADE[name](tmp_path))
    sys.modules.pop("mi_answering", None)
    assert report.passed, "\n" + report.text()
    assert [row.check for row in report.rows if row.status == "skipped"] == []
