"""The smallest whole attack on an accelerator."""

from __future__ import annotations

import gc

import pytest
import torch

from micore.runtime import Runtime
from tests.e2e.outcomes import figures, manifest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no CUDA device"),
]


@pytest.fixture
def on_cuda(attack_arguments):
    """Return the arguments of the smallest attack, on CUDA."""
    return ["cuda" if item == "cpu" else item for item in attack_arguments]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_attack_on_cuda(on_cuda, mi, tmp_path, precision):
    result = mi(*on_cuda, "--precision", precision, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    document = manifest(tmp_path / "run")
    assert document["hardware"]["device"] == "cuda"
    assert document["hardware"]["precision"] == precision
    assert {case["status"] for case in document["cases"]} == {"done"}
    assert all(row["value"] == row["value"] for row in figures(tmp_path / "run")), "no figure is NaN"


def test_the_same_command_gives_the_same_run_on_cuda(on_cuda, mi, tmp_path):
    from tests.e2e.outcomes import outcome

    for name in ("first", "second"):
        assert mi(*on_cuda, "-o", tmp_path / name).exit_code == 0
    assert outcome(tmp_path / "first") == outcome(tmp_path / "second")


def test_the_search_begins_where_it_begins_on_a_cpu():
    for purpose in (("latents", "class-0"), ("views", "class-3")):
        on_cpu, on_gpu = (Runtime.create(device, seed=3).rng(*purpose) for device in ("cpu", "cuda"))
        for draw in ("normal", "uniform"):
            mine, other = getattr(on_gpu, draw)((5, 7)), getattr(on_cpu, draw)((5, 7))
            assert mine.device.type == "cuda"
            assert torch.equal(mine.cpu(), other)


def test_memory_is_released(on_cuda, mi, tmp_path):
    gc.collect()
    before = torch.cuda.memory_allocated()
    assert mi(*on_cuda, "-o", tmp_path / "run").exit_code == 0
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 2**20
