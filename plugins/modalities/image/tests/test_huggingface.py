"""Data sets of the `datasets` library, made here and read from disk: no network."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mi_image.datasets.huggingface import open_huggingface
from micore.errors import DataError

datasets = pytest.importorskip("datasets", reason="the extra mi-image[hf] is not installed")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(n)]


def table(n=15, *, names=("ant", "bee", "cat"), seed=0):
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))})
    data = {"picture": pictures(n, seed), "kind": [index % len(names) for index in range(n)]}
    return datasets.Dataset.from_dict(data, features=features)


@pytest.fixture
def saved(tmp_path):
    splits = {"train": table(), "test": table(6, seed=1), "extra": table(4, names=("eel", "ant"), seed=2)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def open_small(location, **options):
    return open_huggingface(location, **{"size": 8, **options})


def test_columns_are_found_and_classes_set_apart(saved):
    dataset = open_small(saved, public_classes="cat")
    assert dataset.classes == ("ant", "bee")
    assert [len(dataset.split(name)) for name in ("private", "holdout", "public")] == [8, 2, 5]
    assert dataset.judging()[1] == ("ant", "bee", "cat")
    assert dataset.input.shape == (3, 8, 8)
    assert open_huggingface(saved, **dataset.options).fingerprint == dataset.fingerprint


def test_other_splits_can_be_held_out_or_public(saved):
    dataset = open_small(saved, holdout_split="test", public_split="extra", channels=1)
    assert [len(dataset.split(name)) for name in ("private", "holdout", "public")] == [15, 6, 4]
    assert dataset.judging()[1] == ("ant", "bee", "cat", "eel")
    assert dataset.input.shape == (1, 8, 8)


def test_no_image_is_in_two_splits(saved):
    with pytest.raises(DataError, match="what does the adversary have"):
        open_small(saved, public_split="train")
    with pytest.raises(DataError, match="both private and held out"):
        open_small(saved, public_split="test", holdout_split="train")
    with pytest.raises(DataError, match="both held out and public"):
        open_small(saved, public_split="test", holdout_split="test")
    dataset = open_small(saved, public_split="test", holdout_split="test", public_classes="cat")
    assert [len(dataset.split(name)) for name in ("private", "holdout", "public")] == [10, 4, 2]


def test_no_public_data_has_to_be_said(saved):
    with pytest.raises(DataError, match="what does the adversary have"):
        open_small(saved)
    with pytest.raises(DataError, match="no split 'public'"):
        open_small(saved, public_split="none").split("public")


def test_image_folder(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, picture in enumerate(pictures(5, label)):
            picture.save(tmp_path / "images" / name / f"{index}.png")
    dataset = open_small(str(tmp_path / "images"), public_classes="bee")
    assert dataset.classes == ("ant",)
    assert len(dataset.split("public")) == 5


def test_parquet_with_raw_bytes_and_text_labels(tmp_path):
    cells = []
    for picture in pictures(10):
        stream = io.BytesIO()
        picture.save(stream, format="PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    rows = datasets.Dataset.from_dict({"img": cells, "label": [["x", "y"][index % 2] for index in range(10)]})
    (tmp_path / "rows").mkdir()
    rows.to_parquet(str(tmp_path / "rows" / "train.parquet"))
    dataset = open_small(str(tmp_path / "rows"), image_column="img", public_classes="y")
    assert dataset.classes == ("x",)
    expected = np.asarray(pictures(10)[1].resize((8, 8), Image.Resampling.BILINEAR))
    assert torch.equal(dataset.split("public").images[0], torch.tensor(expected).permute(2, 0, 1))


def test_damaged_image_names_its_row(tmp_path):
    cells = [{"bytes": b"no picture", "path": None}] * 4
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 0, 1, 1]})
    rows.save_to_disk(str(tmp_path / "bad"))
    with pytest.raises(DataError, match="split train, row 0 cannot be read"):
        open_small(str(tmp_path / "bad"), image_column="image", public_classes="1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "validation"}, "no split 'validation'"),
        ({"image_column": "photo"}, "no column 'photo'"),
        ({"image_column": "kind"}, "does not hold images"),
        ({"label_column": "photo"}, "no column 'photo'"),
        ({"public_split": "other"}, "no split 'other'"),
        ({"split_public": "other"}, "unknown option 'split_public'"),
    ],
)
def test_wrong_options_are_named(saved, options, words):
    with pytest.raises(DataError) as caught:
        open_small(saved, **{"public_classes": "cat", **options})
    assert words in str(caught.value)


def test_missing_data_set_and_location(tmp_path):
    with pytest.raises(DataError, match="hf needs a data set"):
        open_huggingface(None)
    with pytest.raises(DataError, match="cannot be loaded"):
        open_small(str(tmp_path / "missing"))


def test_rows_without_label_are_refused(tmp_path):
    rows = table(4).map(lambda row: {"kind": -1})
    rows.save_to_disk(str(tmp_path / "unlabelled"))
    with pytest.raises(DataError, match="some rows have no kind"):
        open_small(str(tmp_path / "unlabelled"), public_classes="cat")


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"mi-image\[hf\]"):
        open_huggingface("anything")
