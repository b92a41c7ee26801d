"""From a data set to a report, by the command line and by Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import micore
from micore.artifacts import Bundle
from micore.kit.training import TrainingConfig
from micore.runs import judges
from tests.e2e.commands import leftovers, trained
from tests.e2e.outcomes import events, figures, ledger, manifest, outcome, recovered, timeless

FILES = {
    "run.json", "events.jsonl", "reconstructions.safetensors", "control-prior-samples.safetensors",
    "measurements.json", "report.json", "report.md", "report.html", "samples",
}  # fmt: skip
SUBJECTS = {"attack", "prior-samples", "wrong-label", "holdout"}


@pytest.fixture
def copied(plain, tmp_path):
    """The shared run, to be changed."""
    return Path(shutil.copytree(plain, tmp_path / "copied"))


def test_the_bundle_tells_how_it_came_about(target, defended):
    card = Bundle.load(target).card
    assert card.model.name == "small-cnn"
    assert card.input.shape == (1, 16, 16)
    assert card.classes == ("0", "1", "2", "3", "4")
    assert card.training["epochs"] == 2
    assert card.metrics["holdout_accuracy"] > 0.6
    assert [use.name for use in Bundle.load(defended).card.defenses] == ["neg-label-smoothing"]


def test_a_run_directory_is_complete(plain):
    assert {path.name for path in plain.iterdir()} == FILES
    assert {path.name for path in (plain / "samples").iterdir()} == {f"class-{label}.png" for label in range(5)}
    document = manifest(plain)
    assert document["status"] == "finished"
    assert [case["status"] for case in document["cases"]] == ["done"] * 5
    assert document["access"] == {"granted": "white-box", "used": "white-box"}
    assert [event["event"] for event in events(plain)].count("case") == 5
    assert not leftovers(plain)


def test_floors_and_ceiling_are_judged_beside_the_attack(plain):
    found = {}
    for row in figures(plain):
        found.setdefault(row["name"], set()).add(row["subject"])
    assert found["accuracy@1"] == SUBJECTS
    assert found["distance-private"] == SUBJECTS | {"nearest-public"}


def test_the_report_is_one_file_that_needs_nothing(plain, mi, tmp_path):
    written = (plain / "report.html").read_text()
    file = tmp_path / "page.html"
    result = mi("report", plain, "--html", file)
    assert result.exit_code == 0
    assert file.read_text() == written
    assert written.count("data:image/png;base64,") >= 5
    assert "plmi" in written
    assert 'src="http' not in written
    assert "@import" not in written


def test_defended_and_undefended_side_by_side(plain, defended, attack_arguments, mi, tmp_path, target):
    arguments = [str(defended) if item == str(target) else item for item in attack_arguments]
    assert mi(*arguments, "-o", tmp_path / "defended").exit_code == 0
    text = mi("compare", plain, tmp_path / "defended")
    assert text.exit_code == 0
    assert "neg-label-smoothing" in text.stdout
    document = json.loads(mi("compare", plain, tmp_path / "defended", "--json").stdout)
    assert [run["defenses"] for run in document["runs"]] == [[], ["neg-label-smoothing"]]
    rows = {row["name"]: row["entries"] for row in document["rows"]}
    for first, second in (rows["accuracy@1"], rows["distance-private"]):
        assert first["difference"] is None
        assert second["difference"] == pytest.approx(second["value"] - first["value"])
        assert second["classes"] == 5
    assert [text[:28] for text in document["warnings"]] == ["Differences over 5 classes c"]
    assert json.loads(json.dumps(micore.compare(plain, tmp_path / "defended").to_dict())) == document


def test_evaluating_again_changes_no_figure(copied, mi):
    before = outcome(copied)
    result = mi("evaluate", copied, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert sorted(figures(copied), key=str) == sorted(before[1], key=str)
    assert recovered(copied) == before[0]


def test_evaluating_with_one_evaluator_keeps_the_others(copied, mi):
    assert mi("evaluate", copied, "-e", "distance", "--device", "cpu").exit_code == 0
    assert {row["name"] for row in figures(copied)} >= {"accuracy@1", "distance-private"}


def test_a_plan_foretells_what_is_spent(plain, attack_arguments, mi, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = mi("plan", *attack_arguments[1:], "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    spent = manifest(plain)["ledger"]
    assert plan["total"] == spent["total"]
    assert plan["preparation"] == spent["preparation"]
    assert plan["prepared"] is False
    assert not list(tmp_path.iterdir())


def test_python_gives_what_the_command_line_gives(
    plain, attack_arguments, target, judge, mi, home, tmp_path, monkeypatch
):  # fmt: skip
    monkeypatch.delenv(
        "MI_DATA_ROOT", raising=False
    )  # the command line would note it in the command that repeats the run
    result = mi(*attack_arguments, "-o", tmp_path / "shell", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "shell" / "report.json").read_text())
    run = micore.attack(
        "plmi", model=target, preset="smoke", device="cpu", evaluator_model=judge, output=tmp_path / "python"
    )
    assert outcome(run.directory) == outcome(tmp_path / "shell")
    assert run.manifest["preparation"]["cached"]
    other = json.loads((run.directory / "report.json").read_text())
    assert timeless(other) == timeless(document)


def test_the_same_command_gives_the_same_run(plain, attack_arguments, shell, tmp_path):
    result = shell.run(*attack_arguments, "-o", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    assert not manifest(tmp_path / "again")["preparation"]["cached"]
    assert outcome(tmp_path / "again") == outcome(plain)
    mine, other = ((run / "report.json").read_text() for run in (tmp_path / "again", plain))
    assert timeless(json.loads(mine)) == timeless(json.loads(other))


def test_another_seed_gives_another_run(plain, attack_arguments, mi, tmp_path):
    assert mi(*attack_arguments, "--seed", 1, "-o", tmp_path / "other").exit_code == 0
    (mine, _), (other, _) = recovered(tmp_path / "other"), recovered(plain)
    assert mine[0].keys() == other[0].keys()
    assert all(mine[0][name] != other[0][name] for name in mine[0])
    assert figures(tmp_path / "other") != figures(plain)
    assert ledger(tmp_path / "other") == ledger(plain)


def test_a_judge_is_trained_when_none_is_given(mi, home, tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "judge_training", lambda n: TrainingConfig(epochs=4, augment="strong"))
    options = ("-D", "private=0-1", "-D", "public=2")
    target = trained(tmp_path / "two.safetensors", *options, "--model", "small-cnn", "-p", "epochs=1")
    arguments = ("attack", "--plugin", "plmi", "--model", target, "--preset", "smoke", "--device", "cpu")
    for name in ("first", "second"):
        result = mi(*arguments, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
    first, second = (json.loads((tmp_path / name / "measurements.json").read_text()) for name in ("first", "second"))
    assert first == second, "a judge from the cache is the judge that was trained"
    described = first["judges"]["evaluator-model"]
    assert described["model"] == "small-resnet"
    assert described["independent"]
    (kept,) = home.glob("cache/evaluators/*.safetensors")
    assert described["fingerprint"] == Bundle.load(kept).fingerprint
    assert described["metrics"]["holdout_accuracy"] > 0.6
