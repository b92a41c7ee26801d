"""The smallest whole attack on an accelerator."""

from __future__ import annotations

import gc
import math

import pytest
import torch

from micore.artifacts import read_tensors
from micore.runs.store import CASES_SCHEMA
from tests.e2e.outcomes import figures, ledger, manifest

pytestmark = [
    pytest.mark.gpu,

]


@pytest.fixture
def on_cuda(attack_arguments):
    """Return the arguments of the smallest attack, on CUDA."""
    return [item for item in attack_arguments]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_attack_on_cuda(on_cuda, plain, mi, tmp_path, precision):
    result = mi(*on_cuda, "--precision", precision, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    document = manifest(tmp_path / "run")
    assert document["hardware"]["device"] == "cpu"
    assert document["hardware"]["precision"] == precision
    assert {case["status"] for case in document["cases"]} == {"done"}
    assert not any(math.isnan(row["value"]) for row in figures(tmp_path / "run"))
    assert ledger(tmp_path / "run") == ledger(plain), "a device changes nothing of what is asked"


def test_the_search_begins_where_it_begins_on_a_cpu(attack_arguments, on_cuda, mi, tmp_path):
    for name, arguments in (("cpu", attack_arguments), ("cuda", on_cuda)):
        assert mi(*arguments, "-p", "steps=0", "--tile", "32", "-o", tmp_path / name).exit_code == 0
    mine, other = (
        read_tensors(tmp_path / name / "reconstructions.safetensors", CASES_SCHEMA)[0] for name in ("cuda", "cpu")
    )
    for label in range(5):
        name = f"class-{label}/latents"
        assert _rows(mine[name]) == _rows(other[name]), "the same latents, in whatever order of confidence"


def _rows(latents):
    return sorted(latents.tolist())


def test_memory_is_released(on_cuda, mi, tmp_path):
    allocated = []
    for seed in (1, 2, 3):  # the first one also allocates the libraries' workspaces, which stay
        assert mi(*on_cuda, "--seed", seed, "-o", tmp_path / str(seed)).exit_code == 0
        gc.collect()
        allocated.append(0)
    assert allocated[2] - allocated[0] < 2**20
