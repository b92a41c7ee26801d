"""What cannot work is one clear line, the right exit code, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from micore.artifacts import Bundle
from micore.runs import resume
from tests.e2e.commands import SMALL, complaint, leftovers, trained
from tests.e2e.outcomes import manifest, outcome

QUICK = ("--device", "cpu", "-p", "epochs=1", "--model", "small-cnn")


@pytest.fixture
def attack(target, judge, tmp_path):
    """Return the arguments of an attack with changes: later ones win."""

    def arguments(*changes: object, model: object = target) -> tuple[object, ...]:
        return ("attack", "--plugin", "plmi", "--model", model, "--preset", "smoke", "--device", "cpu",
                "--evaluator-model", judge, "-o", tmp_path / "run", *changes)  # fmt: skip

    return arguments


# models ---------------------------------------------------------------------------------------------------


def _missing(path: Path, target: Path) -> None:
    del path, target


def _truncated(path: Path, target: Path) -> None:
    path.write_bytes(target.read_bytes()[:-1000])


def _cut_in_its_header(path: Path, target: Path) -> None:
    path.write_bytes(target.read_bytes()[:100])


def _empty(path: Path, target: Path) -> None:
    del target
    path.write_bytes(b"")


def _foreign(path: Path, target: Path) -> None:
    del target
    save_file({"weight": torch.zeros(2)}, path)


def _directory(path: Path, target: Path) -> None:
    del target
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "does not exist"), (_truncated, "truncated"), (_cut_in_its_header, "truncated"),
        (_empty, "truncated"), (_foreign, "was not written by micore"), (_directory, "is not a file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_target(refused, attack, target, tmp_path, make, message):
    path = tmp_path / "model.safetensors"
    make(path, target)
    error, _ = refused(5, *attack(model=path))
    assert str(path) in error
    assert message in error


def test_a_pickle_is_refused_with_the_way_to_convert_it(refused, attack, tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    error, hint = refused(5, *attack(model=path))
    assert "pickle" in error
    assert "mi import" in hint


def test_a_target_of_other_classes(refused, attack):
    error, hint = refused(5, *attack("--data", "digits", "-D", "private=0-2", "-D", "public=5-9"))
    assert "has 5 classes" in error
    assert "has 3" in error
    assert "trained on" in hint


def test_a_judge_of_other_classes_or_that_is_the_target(refused, attack, target, tmp_path):
    few = trained(tmp_path / "few.safetensors", "-D", "private=2-3", "--model", "small-cnn", "-p", "epochs=1")
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    for path, message in ((few, "judges 2 classes"), (target, "is the target itself"), (tmp_path / "no", "not exist")):
        error, _ = refused(5, *attack("--evaluator-model", path))
        assert message in error


# names and options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "message", "hint"),
    [
        (("--plugin", "plim"), 4, "'plim'", "plmi"),
        (("-e", "acuracy"), 4, "'acuracy'", "accuracy"),
        (("--data", "digit"), 4, "'digit'", "digits"),
        (("-p", "step=3"), 3, "no option 'step'", "steps"),
        (("-p", "steps=many"), 3, "'steps'", ""),
        (("-p", "steps"), 3, "key=value", ""),
        (("-p", "restarts=0"), 3, "'restarts'", ""),
        (("--preset", "smok"), 3, "no preset 'smok'", "smoke"),
        (("--data", "digits", "-D", "sise=16"), 8, "unknown option 'sise', did you mean size?", "size"),
        (("--data", "digits", "-D", "size=4"), 8, "size=4", ""),
        (("--data", "digits:here"), 8, "no location", "digits"),
        (("-D", "size=16"), 2, "--data-option needs --data", ""),
        (("--classes", "9"), 2, "9 on 5 classes", "0, 1, 2, 3, 4"),
        (("--classes", "x"), 2, "'x' is neither", "0, 1, 2, 3, 4"),
        (("--classes", "3-1"), 2, "upwards", "1-3"),
        (("--access", "scores"), 6, "needs white-box access", "scores"),
        (("--access", "label"), 6, "needs white-box access", "label"),
        (("--access", "all"), 2, "'all'", "white-box"),
        (("--budget-queries", "0"), 2, "positive", ""),
        (("--device", "gpu"), 12, "'gpu'", "cuda"),
        (("--device", "meta"), 12, "'meta'", "cuda"),
        (("--precision", "fp8"), 12, "'fp8'", "bf16"),
        (("--precision", "fp16"), 12, "accelerator", "bf16"),
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly(refused, attack, home, changes, code, message, hint):
    error, found = refused(code, *attack(*changes))
    assert message in error
    assert hint in found
    assert not home.exists()


@pytest.mark.parametrize(
    ("changes", "code", "message", "hint"),
    [
        (("--model", "smal-cnn"), 4, "'smal-cnn'", "small-cnn"),
        (("--model", "small-cnn:depth=3"), 5, "'depth'", ""),
        (("--defense", "neg-label-smothing"), 4, "'neg-label-smothing'", "neg-label-smoothing"),
        (("--defense", "neg-label-smoothing:epsilon=1"), 3, "'epsilon'", ""),
        (("-p", "epoch=3"), 3, "no option 'epoch'", "epochs"),
        (("--defense", "mid", "--defense", "calor"), 2, "'mid' and 'calor' exclude each other: both replace", "one of"),
        (("--defense", "dp-sgd", "--defense", "bido"), 2, "replace the target's batches", "one of them"),
        (("--defense", "mid", "--defense", "mid"), 2, "named twice", ""),
        (("--defense", "mid:beta=-1"), 3, "'beta'", ""),
        (("--defense", "rolss"), 5, "no skip connection was found in this model", "small-resnet"),
        (("--defense", "dp-sgd", "--defense", "nopeek"), 3, "cannot be combined", "leave one of them out"),
        (("--defense", "dp-sgd", "-p", "validation=0.1"), 3, "kept aside, outside the mechanism", "validation=0"),
    ],
)
def test_a_training_that_is_asked_for_wrongly(refused, home, tmp_path, changes, code, message, hint):
    arguments = ("train", *SMALL, *QUICK, *changes, "-o", tmp_path / "new" / "target.safetensors")
    error, found = refused(code, *arguments)
    assert message in error
    assert hint in found
    assert not home.exists()


def test_a_checkpoint_interval_that_is_none(refused, attack, monkeypatch):
    monkeypatch.setenv("MI_CHECKPOINT_SECONDS", "often")
    error, hint = refused(2, *attack())
    assert "MI_CHECKPOINT_SECONDS=often" in error
    assert "30" in hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_device_that_is_not_there(refused, attack, device):
    error, _ = refused(12, *attack("--device", device))
    assert "CUDA" in error


# images of the user's own ---------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Two private classes and a public one, as a user would have them: no two pictures alike in kind."""
    root = tmp_path / "pictures"
    draw = np.random.default_rng(0)
    for name in ("cat", "dog", "elk"):
        (root / name).mkdir(parents=True)
        for number, size in enumerate(((20, 20), (31, 17), (9, 40), (16, 16))):
            rows = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(rows).save(root / name / f"{number}.png")
    grey = Image.fromarray(draw.integers(0, 256, (18, 25), dtype=np.uint8))
    grey.save(root / "cat" / "grey.png")
    grey.quantize(16).save(root / "cat" / "palette.png")
    grey.convert("RGBA").save(root / "cat" / "alpha.png")
    grey.convert("LA").save(root / "dog" / "grey-alpha.png")
    grey.convert("1").save(root / "dog" / "bits.png")
    grey.convert("CMYK").save(root / "dog" / "cmyk.jpg")
    Image.fromarray(draw.integers(0, 65536, (18, 25), dtype=np.uint16)).save(root / "elk" / "deep.png")
    grey.quantize(16).save(root / "elk" / "moving.gif")
    return root


def folder(root: Path, out: Path, *options: object) -> tuple[object, ...]:
    data = ("--data", f"folder:{root}", "-D", "public_classes=elk", "-D", "size=16")
    return ("train", *data, *QUICK, "-o", out, *options)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_and_kind_are_converted(mi, pictures, tmp_path, channels):
    out = tmp_path / "target.safetensors"
    result = mi(*folder(pictures, out, "-D", f"channels={channels}"))
    assert result.exit_code == 0, result.output
    card = Bundle.load(out).card
    assert card.classes == ("cat", "dog")
    assert card.input.shape == (channels, 16, 16)
    assert sum(card.data["splits"].values()) == 7 + 7 + 6


def test_a_picture_that_cannot_be_read_is_named(refused, pictures, tmp_path):
    whole = (pictures / "dog" / "0.png").read_bytes()
    for content in (b"no picture", b"", whole[: len(whole) // 2]):
        (pictures / "dog" / "broken.png").write_bytes(content)
        error, hint = refused(8, *folder(pictures, tmp_path / "target.safetensors"))
        assert str(pictures / "dog" / "broken.png") in error
        assert "take it out" in hint


def test_an_empty_class_is_named(refused, pictures, tmp_path):
    (pictures / "bee").mkdir()
    error, _ = refused(8, *folder(pictures, tmp_path / "target.safetensors"))
    assert "'bee' is empty" in error


def test_a_class_too_small_to_hold_one_out_is_named(refused, pictures, tmp_path):
    (pictures / "bee").mkdir()
    shutil.copy(pictures / "cat" / "0.png", pictures / "bee" / "only.png")
    error, hint = refused(8, *folder(pictures, tmp_path / "target.safetensors"))
    assert "'bee'" in error
    assert "holdout=0" in hint


@pytest.mark.parametrize(
    ("place", "message"), [("nowhere", "nowhere"), ("pictures/cat", "no directories"), ("pictures/cat/0.png", "0.png")]
)
def test_a_place_without_classes(refused, pictures, tmp_path, place, message):
    error, _ = refused(8, *folder(tmp_path / place, tmp_path / "target.safetensors"))
    assert message in error


def test_data_without_a_public_part(refused, pictures, tmp_path):
    arguments = ("train", "--data", f"folder:{pictures}", "-D", "size=16", *QUICK, "-o", tmp_path / "t.safetensors")
    error, hint = refused(8, *arguments)
    assert "what does the adversary have" in error
    assert "public_classes" in hint


# places to write to ---------------------------------------------------------------------------------------


def test_a_directory_with_something_in_it(refused, attack, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    error, hint = refused(10, *attack())
    assert "not an empty directory" in error
    assert "-o" in hint
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_directory_that_is_a_file(refused, attack, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    error, hint = refused(10, *attack())
    assert "holds a run already" in error
    assert "mi resume" in hint


def test_a_target_that_is_there_already(refused, tmp_path):
    out = tmp_path / "target.safetensors"
    out.write_text("mine")
    error, hint = refused(2, "train", *SMALL, *QUICK, "-o", out)
    assert "exists already" in error
    assert "--force" in hint
    assert out.read_text() == "mine"


def test_a_place_below_a_file(refused, attack, home, tmp_path):
    (tmp_path / "file").write_text("mine")
    error, _ = refused(11, "train", *SMALL, *QUICK, "-o", tmp_path / "file" / "target.safetensors")
    assert "cannot write" in error
    assert not home.exists(), "told before the training"
    error, _ = refused(11, *attack("-o", tmp_path / "file" / "run"))
    assert "cannot write" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_may_only_be_read(refused, attack, tmp_path):
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    for arguments in (("train", *SMALL, *QUICK, "-o", place / "target.safetensors"), attack("-o", place / "run")):
        error, _ = refused(11, *arguments)
        assert "cannot write" in error


def limited(n_bytes: int) -> object:
    """Return what lets a process write no file larger than this: the write fails as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def test_no_space_for_the_target(shell, tmp_path):
    out = tmp_path / "new" / "target.safetensors"
    process = shell.run("train", *SMALL, *QUICK, "-o", out, preexec_fn=limited(20_000))
    error, hint = complaint(process.returncode, 11, process.stdout, process.stderr, out, set())
    assert str(out) in error
    assert "nothing was half-written" in hint
    assert not out.exists()


def test_no_space_for_a_run(shell, attack, tmp_path):
    process = shell.run(*attack(), preexec_fn=limited(1000))
    complaint(process.returncode, 11, process.stdout, process.stderr, tmp_path, set())


def test_no_space_in_the_middle_of_a_run(shell, attack, plain, tmp_path):
    run = tmp_path / "run"
    process = shell.run(*attack(), preexec_fn=limited(15_000))
    assert process.returncode == 11, process.stderr
    assert manifest(run)["status"] == "failed"
    assert "cannot write" in manifest(run)["error"]
    assert not leftovers(tmp_path)
    assert resume_in_process(run).manifest["status"] == "finished"
    assert outcome(run) == outcome(plain)


def resume_in_process(run):
    from micore.registry import Registry

    return resume(Registry.discover(), run)


def test_a_full_disk_says_what_to_do(refused, attack, monkeypatch, tmp_path):
    def full(self, content, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    error, hint = refused(11, *attack())
    assert "No space left on device" in error
    assert "free space" in hint


# runs that cannot go on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["resume", "evaluate", "report", "compare"])
def test_a_directory_that_is_no_run(refused, tmp_path, command):
    (tmp_path / "empty").mkdir()
    arguments = [tmp_path / "empty"] * (2 if command == "compare" else 1)
    error, _ = refused(10, command, *arguments)
    assert "no run directory" in error
    error, _ = refused(10, command, *[tmp_path / "nowhere"] * len(arguments))
    assert "no run directory" in error


def test_a_damaged_manifest(refused, plain, tmp_path):
    run = Path(shutil.copytree(plain, tmp_path / "run"))
    content = (run / "run.json").read_text()
    for text, message in ((content[:500], "JSON"), ("[]", "schema"), ("{}", "schema")):
        (run / "run.json").write_text(text)
        error, _ = refused(10, "resume", run)
        assert message in error


def test_a_target_that_changed(refused, mi, target, judge, defended, tmp_path):
    model = Path(shutil.copy(target, tmp_path / "model.safetensors"))
    run = tmp_path / "run"
    arguments = ("attack", "--plugin", "plmi", "--model", model, "--preset", "smoke", "--device", "cpu",
                 "--evaluator-model", judge, "--classes", "0", "--budget-queries", "100", "-o", run)  # fmt: skip
    stopped = mi(*arguments)
    assert stopped.exit_code == 7, stopped.output
    shutil.copy(defended, model)
    error, hint = refused(10, "resume", run)
    assert "the target has changed" in error
    assert "new run" in hint
    model.unlink()
    error, _ = refused(5, "resume", run)
    assert "does not exist" in error
