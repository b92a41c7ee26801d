"""A case's result depends on no other case, on no batching, on no rank, and on no global state."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.commands import PATIENCE_S
from tests.e2e.outcomes import figures, ledger, of_case, outcome, recovered

STATE = """
import os
os.environ["E2E_STATE"] = "set"
import random, sys

class _AfterTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "micore.runs":
            import numpy, torch
            random.seed(7)
            numpy.random.seed(7)
            torch.manual_seed(7)
            torch.rand(11)
        return None

sys.meta_path.insert(0, _AfterTorch())
"""


@pytest.mark.parametrize("batch", [1, 2])
def test_the_batch_changes_nothing(plain, attack_arguments, mi, tmp_path, batch):
    assert mi(*attack_arguments, "--batch", batch, "-o", tmp_path / "run").exit_code == 0
    assert outcome(tmp_path / "run") == outcome(plain)


@pytest.mark.parametrize("choice", ["3", "4,3"])
def test_a_class_alone_is_as_among_all(plain, attack_arguments, mi, tmp_path, choice):
    assert mi(*attack_arguments, "--classes", choice, "-o", tmp_path / "run").exit_code == 0
    assert of_case(tmp_path / "run", "class-3") == of_case(plain, "class-3")
    cases = {f"class-{label}" for label in choice.split(",")}
    for mine, other in zip(figures(tmp_path / "run"), figures(plain), strict=True):
        assert mine["per_case"].keys() == cases
        assert mine["per_case"]["class-3"] == other["per_case"]["class-3"], mine["name"]


def test_two_ranks_give_what_one_process_gives(plain, attack_arguments, shell, tmp_path):
    launcher = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = shell.environment(ACCELERATE_USE_CPU="true")
    arguments = [item for item in attack_arguments if item not in ("--device", "cpu")]
    process = subprocess.run(
        [*launcher, "-m", "micore", *arguments, "-o", str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("report:") == 1, "only the first rank prints"
    assert outcome(tmp_path / "run") == outcome(plain)


def test_global_random_state_changes_nothing(plain, attack_arguments, shell, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STATE)
    environment = {"PYTHONPATH": str(site), "PYTHONHASHSEED": "12345"}
    result = shell.run(*attack_arguments, "-o", tmp_path / "run", env=environment)
    assert result.returncode == 0, result.stderr
    assert recovered(tmp_path / "run") == recovered(plain)
    assert figures(tmp_path / "run") == figures(plain)
    assert ledger(tmp_path / "run") == ledger(plain)
