"""A whole run of goal ``instance``: cases, evidence, controls, truth, evaluators and report."""

from __future__ import annotations

import json

import pytest
import torch

from mi_image.modality import ImageModality
from micore import api, runs
from micore.artifacts import read_tensors
from micore.errors import ConfigError, UsageError
from micore.report import render
from micore.report.gallery import pictures
from micore.testing.check import check_plugin
from micore.threat import Budget
from tests import instance_toys

REGISTRY = instance_toys.registry()
FLOORS = {"evidence", "nearest-public", "no-target"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the toy attack."""
    place = tmp_path_factory.mktemp("instances")
    target, judge = place / "target.safetensors", place / "judge.safetensors"
    training = {"epochs": 12, "batch_size": 32, "learning_rate": 1e-2, "augment": "none"}
    common = {"data": "keyed", "device": "cpu", "registry": REGISTRY}
    api.train(model="small-cnn", output=target, training=training, **common)
    api.train(model="small-resnet", output=judge, training={**training, "augment": "light"}, seed=9, **common)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MI_HOME", str(place / "home"))
        yield attack(target, place / "run", evaluator_model=judge)


def attack(target, output, **changes):
    arguments = {"model": target, "output": output, "device": "cpu", "registry": REGISTRY, **changes}
    return api.attack("retrieval", **arguments)


def figures(run, name):
    return {item.subject: item.value for item in run.measurements() if item.name == name}


def test_the_toy_attack_passes_every_check():
    report = check_plugin("attack", "retrieval", registry=REGISTRY)
    assert report.passed, report.text()
    rows = {row.check: row.status for row in report.rows}
    assert rows["control-recovers-nothing"] == rows["beats-the-baseline"] == "passed"


def test_the_target_gives_more_than_the_evidence(run):
    """The hidden part comes back; the judge recognises the class by the visible part, too."""
    recognised, hidden, distance = (figures(run, name) for name in ("accuracy@1", "psnr-hidden", "distance-truth"))
    for floor in FLOORS:
        assert hidden["attack"] > hidden[floor] + 1, hidden
        assert distance["attack"] < distance[floor], distance
    for floor in FLOORS - {"evidence"}:
        assert recognised["attack"] > recognised[floor] + 0.1, recognised
    assert recognised["attack"] >= recognised["evidence"], recognised


def test_every_figure_stands_beside_its_controls(run):
    for name in ("accuracy@1", "distance-truth", "cosine-truth"):
        assert figures(run, name).keys() == {"attack", "holdout"} | FLOORS
    for name in ("psnr", "ssim", "psnr-hidden", "ssim-hidden"):
        assert figures(run, name).keys() == {"attack"} | FLOORS
    assert figures(run, "ssim")["evidence"] < 1


def test_the_manifest_names_the_evidence_and_holds_no_truth(run):
    manifest = json.loads((run.directory / "run.json").read_text())
    assert manifest["evidence"] == "centre"
    assert [case["id"] for case in manifest["cases"]][:6] == [f"image-{row}" for row in (0, 1, 2, 3, 4, 48)]
    assert len(manifest["cases"]) == 20
    assert {case["label"] for case in manifest["cases"]} == {None}


def test_previews_begin_with_the_evidence(run):
    stored, _ = read_tensors(run.directory / "control-evidence.safetensors", "micore.reconstructions/1")
    assert stored["image-0/samples/images"].shape == (1, 1, 16, 16)
    assert len(list((run.directory / "samples").iterdir())) == 20


def test_the_report_shows_private_images_only_when_asked(run):
    modality, dataset = ImageModality(), instance_toys.open_keyed(None)
    truth = modality.show(dataset.split("private").take([0]), 1)
    plain, private = (render(run, "html", modality=modality, dataset=dataset, show_private=asked)
                      for asked in (False, True))  # fmt: skip
    assert truth not in plain
    assert "with the samples it is private, too" in plain
    assert truth in private
    for asked, columns in ((None, ["evidence", "recovered"]), (dataset, ["evidence", "private", "recovered"])):
        shown = pictures(run, modality, asked, redact=False)
        assert [*shown.columns] == [*columns, "nearest-public", "no-target"]


def test_judging_again_gives_the_same(run):
    before = (run.directory / "measurements.json").read_bytes()
    api.evaluate(run.directory, registry=REGISTRY)
    assert (run.directory / "measurements.json").read_bytes() == before


@pytest.mark.parametrize("kind", ["bottom", "scattered", "blur"])
def test_other_evidence_reaches_the_attack(run, tmp_path, kind):
    target = run.manifest["target"]["uri"]
    other = attack(target, tmp_path / "run", evidence=kind, classes="3,50", evaluators=["paired"])
    assert other.manifest["attack"]["config"]["evidence"] == other.manifest["evidence"] == kind
    assert [case["id"] for case in other.manifest["cases"]] == ["image-3", "image-50"]
    assert f"--evidence {kind}" in render(other, "markdown")
    assert other.manifest["preparation"]["key"] != run.manifest["preparation"]["key"]


def test_the_attacks_own_option_is_the_same(run, tmp_path):
    target = run.manifest["target"]["uri"]
    options = {"evidence": "bottom"}
    other = attack(target, tmp_path / "run", options=options, classes="3", evaluators=["paired"])
    (item,) = other.reconstructions(ImageModality())
    truth = instance_toys.open_keyed(None).split("private").take([3])[0]
    assert torch.equal(item.samples[0][:, :8], truth[:, :8])
    assert other.manifest["evidence"] == "bottom"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"evidence": "sepia"}, ConfigError, "no kind of evidence; there are centre"),
        ({"evidence": "blur", "options": {"evidence": "bottom"}}, UsageError, "--evidence blur contradicts -p"),
        ({"classes": "192"}, UsageError, "192 private samples"),
        ({"classes": "key-1"}, UsageError, "no number of a sample"),
        ({"evaluators": ["accuracy"], "classes": "9-3"}, UsageError, "goes upwards"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(run, tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        attack(run.manifest["target"]["uri"], tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_goes_on_with_the_same_evidence(run, tmp_path):
    target = run.manifest["target"]["uri"]
    stopped = attack(target, tmp_path / "run", classes="0-2", budget_queries=100, evaluators=["paired"])
    assert stopped.manifest["status"] == "budget"
    done = runs.resume(REGISTRY, tmp_path / "run", budget=Budget(queries=1000))
    whole = {item.case.id: item.samples for item in run.reconstructions(ImageModality())}
    assert {item.case.id for item in done.reconstructions(ImageModality())} == {"image-0", "image-1", "image-2"}
    for item in done.reconstructions(ImageModality()):
        assert torch.equal(item.samples, whole[item.case.id])


def test_the_command_line_takes_cases_and_evidence(mi, target, tmp_path):
    """An attack on classes has no evidence; `--cases` is another name of `--classes`."""
    common = ("attack", "--plugin", "plmi", "--model", target, "--device", "cpu", "-o", tmp_path / "run")
    refused = mi(*common, "--evidence", "centre")
    assert refused.exit_code == 2
    assert "goal 'class' has no evidence" in refused.output
    out_of_range = mi(*common, "--cases", "0-9")
    assert out_of_range.exit_code == 2
    assert "--classes 0-9 on 5 classes" in out_of_range.output
    assert not (tmp_path / "run").exists()
