"""ONNX files as targets: the answers are those of the network that was exported."""

from __future__ import annotations

from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mi_model_onnx.loading import load
from micore.errors import ConfigError, ModelError, UsageError
from micore.external import External, SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.threat import Access

SHAPE, CLASSES = (1, 4, 4), ("a", "b", "c")
DATASET = SimpleNamespace(modality="image", classes=CLASSES, input=InputSpec(shape=SHAPE, mean=(0.5,), std=(0.25,)))
WEIGHTS = np.random.default_rng(3).standard_normal((16, 3)).astype(np.float32)


def written(path: Path, batch: int | str = "n", kind: int = TensorProto.FLOAT, shape: tuple[int, ...] = SHAPE) -> Path:
    """Write a file that flattens and multiplies: no exporter is needed."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["cast"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("pixels", kind, [batch, *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(np.resize(WEIGHTS, (prod(shape), 3)), "weights")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def opened(path: Path, dataset: object = DATASET, **options: object) -> External:
    runtime = Runtime(device=torch.device("cpu"))
    return load(SourceRequest(uri=f"onnx:{path}", runtime=runtime, options=options, dataset=dataset))


def inputs(n: int) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(n))


def answers(target: External, values: torch.Tensor) -> torch.Tensor:
    assert target.respond is not None
    return target.respond(values)


def expected(values: torch.Tensor) -> torch.Tensor:
    return (values.flatten(1) @ torch.from_numpy(WEIGHTS)).softmax(dim=1)


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_it_answers(tmp_path, batch):
    target = opened(written(tmp_path / "x.onnx", batch))
    assert target.highest_access == Access.SCORES
    assert torch.allclose(answers(target, inputs(6)), expected(inputs(6)), atol=1e-6)


def test_double_precision(tmp_path):
    target = opened(written(tmp_path / "x.onnx", kind=TensorProto.DOUBLE))
    assert torch.allclose(answers(target, inputs(3)), expected(inputs(3)), atol=1e-6)


def test_the_normalisation_is_the_data_sets_unless_it_is_given(tmp_path):
    path = written(tmp_path / "x.onnx")
    assert opened(path).card.input.mean == (0.5,)
    plain = opened(path, mean=[], std=[])
    assert plain.card.input.mean == ()
    assert plain.fingerprint != opened(path).fingerprint


def test_equal_files_are_equal_targets(tmp_path):
    first, second = written(tmp_path / "x.onnx"), written(tmp_path / "y.onnx")
    assert opened(first).fingerprint == opened(second).fingerprint


def test_what_does_not_fit(tmp_path):
    path = written(tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="give --data"):
        opened(path, dataset=None)
    with pytest.raises(ModelError, match="is no file"):
        opened(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match=r"takes samples of shape \[1, 4, 5\]; the data set has \[1, 4, 4\]"):
        opened(written(tmp_path / "wide.onnx", shape=(1, 4, 5)))
    with pytest.raises(ModelError, match="floating point"):
        opened(written(tmp_path / "int.onnx", kind=TensorProto.UINT8))
    with pytest.raises(ModelError, match="no output 'other'; it has: logits"):
        opened(path, output="other")
    with pytest.raises(ModelError, match="has these inputs: pixels"):
        opened(path, input="other")
    with pytest.raises(ConfigError, match="no option"):
        opened(path, width=3)
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(ModelError, match="cannot be opened by ONNX Runtime"):
        opened(tmp_path / "text.onnx")
