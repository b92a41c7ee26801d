"""What trackers are told of a run: flat, complete, without samples, and the same in every sitting."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed

from micore.kit.tracking import case_index, figures, identity, leads, parameters, recovered
from micore.runs import Run
from micore.testing.toy_runs import ToyRuns


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> ToyRuns:
    """Runs in one directory, on one target."""
    return ToyRuns(tmp_path_factory.mktemp("toy-runs"))


@pytest.fixture(scope="module")
def run(toys: ToyRuns) -> Run:
    """A finished run."""
    return toys.attack("run")


def test_parameters_are_what_decides_the_results(run: Run) -> None:
    found = parameters(run)
    assert found["attack.name"] == "toy-noise"
    assert found["target.fingerprint"] == run.manifest["target"]["fingerprint"]
    assert (found["access"], found["seed"], found["data.name"]) == ("scores", "0", "toy-grids")
    assert found["target.defenses"] == "none"
    assert "evidence" not in found
    assert all(isinstance(value, str) for value in found.values())


def test_parameters_name_no_place_of_this_machine(run: Run, toys: ToyRuns) -> None:
    assert str(toys.directory) in json.dumps(run.manifest)
    assert str(toys.directory) not in json.dumps(parameters(run))


def test_figures_stand_beside_floors_and_ceiling(run: Run) -> None:
    found = figures(run)
    for item in run.measurements():
        role = {"attack": "", "holdout": "ceiling/"}.get(item.subject, "floor/")
        place = f"toy-contrast/{role}{item.subject}"
        assert found[f"{place}/value"] == item.value
        assert found[f"{place}/n"] == item.n
        assert item.interval is not None
        assert (found[f"{place}/low"], found[f"{place}/high"]) == (item.interval.low, item.interval.high)
    assert found["ledger/total/queries"] == 8
    assert {name: found[f"cases/{name}"] for name in ("done", "failed", "budget")} == {
        "done": 4,
        "failed": 0,
        "budget": 0,
    }


def test_figures_of_several_judges_bear_their_names(toys: ToyRuns) -> None:
    run = toys.attack("judges")
    ours = run.measurements()
    theirs = [replace(item, evaluator="other@2", value=math.nan, interval=None) for item in ours]
    run.write_measurements([*ours, *theirs], {})
    found = figures(run)
    assert found["toy-contrast@1/toy-contrast/attack/value"] == ours[0].value
    assert math.isnan(found["other@2/toy-contrast/attack/value"])
    assert "other@2/toy-contrast/attack/low" not in found
    assert "toy-contrast/attack/value" not in found


def test_a_name_is_no_folder_of_another(run: Run) -> None:
    """Stores of files keep each number in a file: ``a`` and ``a/b`` cannot both be there."""
    names = list(figures(run))
    assert [(one, two) for one in names for two in names if two.startswith(f"{one}/")] == []


def test_identity_is_of_one_run_over_its_sittings(toys: ToyRuns, run: Run) -> None:
    half = toys.attack("half", cases=1)
    before = identity(half), parameters(half), recovered(half)
    whole = toys.resume(half)
    assert (identity(whole), parameters(whole)) == before[:2]
    assert (before[2], recovered(whole)) == (1, 4)
    assert identity(whole) != identity(run)
    assert identity(Run.open(whole.directory)) == identity(whole)


def test_cases_are_counted(run: Run) -> None:
    assert [case_index(run, row["id"]) for row in run.manifest["cases"]] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no-such"):
        case_index(run, "no-such")


def test_only_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leads()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert leads() == (rank == 0)


def test_toy_runs_leave_the_home_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MI_HOME", str(tmp_path / "mine"))
    ToyRuns(tmp_path / "runs").attack()
    assert not (tmp_path / "mine").exists()
    assert (tmp_path / "runs" / "home").exists()
