"""Real data under MI_DATA_ROOT: counts, ranges, disjoint identities. Skipped where there is none."""

import csv
import os
import zipfile
from pathlib import Path

import pytest
import torch

from mi_image.datasets.faces import open_faces
from mi_image.datasets.mnist import open_mnist
from micore.errors import DataError

ROOT = Path(os.environ.get("MI_DATA_ROOT", ""))
needs_mnist = pytest.mark.skipif(
    not (ROOT / "digits/mnist/mnist.npz").is_file(), reason="MI_DATA_ROOT has no digits/mnist"
)
needs_faces = pytest.mark.skipif(not (ROOT / "faces/lfw/index.csv").is_file(), reason="MI_DATA_ROOT has no faces/lfw")


def lengths(dataset):
    return [len(dataset.split(name)) for name in ("private", "holdout", "public")]


@needs_mnist
def test_mnist_counts():
    dataset = open_mnist(None, data_root=ROOT, size=28)
    assert lengths(dataset) == [30596, 5139, 29404]
    split, classes = dataset.judging()
    assert classes == tuple("0123456789")
    assert torch.bincount(split.labels)[:5].tolist() == torch.bincount(dataset.split("private").labels).tolist()
    images = dataset.split("private").take(range(200))
    assert (images.min(), images.max()) == (0, 1)


@needs_mnist
@pytest.mark.parametrize(("public", "n"), [("5-9", 500), ("omniglot", 4840), ("usps", 500), ("0-9", 1000)])
def test_mnist_public_sets(public, n):
    dataset = open_mnist(None, data_root=ROOT, size=16, limit=100, public=public)
    assert lengths(dataset) == [500, 500, n]
    assert dataset.input.shape == (1, 16, 16)
    private, others = (
        {image.numpy().tobytes() for image in dataset.split(name).images} for name in ("private", "public")
    )
    assert not private & others
    assert len(dataset.judging()[1]) == 10


@needs_faces
def test_faces_of_31_people():
    dataset = open_faces(None, data_root=ROOT, size=32, min_images=30)
    assert lengths(dataset) == [1121, 386, 8266]
    assert len(dataset.classes) == 31
    assert dataset.input.shape == (3, 32, 32)
    for name in ("private", "holdout"):
        counts = torch.bincount(dataset.split(name).labels, minlength=31)
        assert counts.min() >= 1
        assert counts.max() <= 50
    assert dataset.judging()[1] == dataset.classes
    images = dataset.split("public").take(range(64))
    assert images.min() < 0.1
    assert images.max() > 0.9
    assert 0.2 < images.mean() < 0.7


@needs_faces
def test_people_are_disjoint_by_label():
    with (ROOT / "faces/lfw/index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    private = {row["file"] for row in rows if row["split"] == "private_train"}
    holdout = {row["file"] for row in rows if row["split"] == "private_test"}
    assert not private & holdout
    with zipfile.ZipFile(ROOT / "faces/lfw/private_112.zip") as archive:
        assert private | holdout == {name for name in archive.namelist() if not name.endswith("/")}
    people = {row["label"] for row in rows if row["split"].startswith("private")}
    assert len(people) == 89
    assert {row["label"] for row in rows if row["split"] == "private_test"} == people


@pytest.mark.parametrize("opener", [open_mnist, open_faces])
def test_data_root_is_needed(opener, monkeypatch, tmp_path):
    monkeypatch.delenv("MI_DATA_ROOT", raising=False)
    with pytest.raises(DataError, match=r"--data-root DIR or MI_DATA_ROOT"):
        opener(None)
    monkeypatch.setenv("MI_DATA_ROOT", str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        opener(None)


def test_damaged_archives_are_named(tmp_path):
    (tmp_path / "digits/mnist").mkdir(parents=True)
    (tmp_path / "digits/mnist/mnist.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match=r"mnist\.npz cannot be read"):
        open_mnist(None, data_root=tmp_path)
    lfw = tmp_path / "faces/lfw"
    lfw.mkdir(parents=True)
    for name in ("private_112.zip", "public_64.zip"):
        (lfw / name).write_bytes(b"not a zip")
    (lfw / "index.csv").write_text("file,split,label\n00/000.jpg,private_train,0\n00/001.jpg,private_test,0\n")
    with pytest.raises(DataError, match=r"private_112\.zip cannot be read"):
        open_faces(None, data_root=tmp_path)
    with pytest.raises(DataError, match="nobody has 3 images"):
        open_faces(None, data_root=tmp_path, min_images=3)
    (lfw / "index.csv").write_text("name,label\n")
    with pytest.raises(DataError, match="lists no images"):
        open_faces(None, data_root=tmp_path)
