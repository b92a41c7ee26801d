"""Stages of a preparation, and the shelf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from micore.artifacts import load_state
from micore.kit.stages import Stages, shared, tensor_digest
from micore.runtime import Checkpoints, Runtime
from micore.shelf import Shelf


class Killed(BaseException):
    """Stands for a kill."""


class Counter:
    """Work of five steps that can be killed, and counts those it does."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.kill_after, self.steps = kill_after, 0

    def __call__(self, runtime: Runtime) -> Mapping[str, Any]:
        saved = runtime.checkpoints.load()
        total = int(saved["total"]) if saved else 0
        while total < 5:
            total += 1
            self.steps += 1
            state = {"total": total, "tensor": torch.full((2,), float(total))}
            runtime.checkpoints.offer(lambda state=state: state)  # type: ignore[misc]
            if self.kill_after == self.steps:
                raise Killed
        return {"sum": total, "tensor": torch.ones(2)}


def runtime(path: Path) -> Runtime:
    return Runtime(device=torch.device("cpu"), checkpoints=Checkpoints(path / "checkpoint.safetensors", 0.0))


def test_a_killed_preparation_goes_on_in_its_stage(tmp_path: Path) -> None:
    first, second = Counter(), Counter(kill_after=3)
    stages = Stages(runtime(tmp_path))
    stages.run("first", first)
    with pytest.raises(Killed):
        stages.run("second", second)
    first_again, second_again = Counter(), Counter()
    stages = Stages(runtime(tmp_path))
    assert stages.run("first", first_again)["sum"] == 5
    assert stages.run("second", second_again)["sum"] == 5
    assert (first_again.steps, second_again.steps) == (0, 2)


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    work, stages = Counter(), Stages(runtime(tmp_path))
    assert stages.run("only", work) is stages.run("only", work)
    assert work.steps == 5
    state, _ = load_state(tmp_path / "checkpoint.safetensors")
    assert state["done"]["only"]["sum"] == 5


def test_without_checkpoints_it_just_works() -> None:
    assert Stages(Runtime(device=torch.device("cpu"))).run("only", Counter())["sum"] == 5


def test_the_shelf_serves_a_second_attack(tmp_path: Path) -> None:
    machine = replace(runtime(tmp_path), shelf=Shelf(tmp_path / "shelf"))
    work, again = Counter(), Counter()
    made, taken = shared("gan", {"width": 4}, work, machine), shared("gan", {"width": 4}, again, machine)
    assert torch.equal(made["tensor"], taken["tensor"])
    assert (work.steps, again.steps) == (5, 0)
    assert machine.shelf.reused_seconds >= 0
    shared("gan", {"width": 8}, again, machine)
    assert again.steps == 5
    other = Counter()
    shared("gan", {"width": 4}, other, replace(machine, seed=1))
    assert other.steps == 5


def test_killed_shared_work_goes_on(tmp_path: Path) -> None:
    machine = replace(runtime(tmp_path), shelf=Shelf(tmp_path / "shelf"))
    with pytest.raises(Killed):
        shared("gan", {}, Counter(kill_after=4), machine)
    again = Counter()
    assert shared("gan", {}, again, machine)["sum"] == 5
    assert again.steps == 1
    assert [path.name.split("-")[0] for path in (tmp_path / "shelf").iterdir()] == ["gan"]


def test_without_a_shelf_the_work_uses_the_runs_own_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        shared("gan", {}, Counter(kill_after=4), runtime(tmp_path))
    again = Counter()
    shared("gan", {}, again, runtime(tmp_path))
    assert again.steps == 1


def test_tensors_are_told_apart_by_shape_type_and_content() -> None:
    tensor = torch.arange(6.0)
    variants = [tensor, tensor.view(2, 3), tensor.double(), tensor + 1]
    assert len({tensor_digest(variant) for variant in variants}) == 4
    assert tensor_digest(tensor) == tensor_digest(tensor.clone())
