"""Data sets of the `datasets` library, made here and read from disk: no network."""

import sys

import pytest
import torch

from mi_text.datasets.huggingface import open_hf_text
from micore.errors import DataError

datasets = pytest.importorskip("datasets", reason="the extra mi-text[hf] is not installed")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def table(n=40, *, names=("sea", "air"), start=0):
    features = datasets.Features({"text": datasets.Value("string"), "topic": datasets.ClassLabel(names=list(names))})
    data = {
        "text": [f"text {index}" for index in range(start, start + n)],
        "topic": [index % len(names) for index in range(n)],
    }
    return datasets.Dataset.from_dict(data, features=features)


@pytest.fixture
def saved(tmp_path):
    splits = {"train": table(), "test": table(30, start=30), "extra": table(9, names=("sea", "land"), start=100)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def sizes(dataset, *names):
    return [len(dataset.split(name)) for name in names]


def test_shares_are_cut_off_a_split(saved):
    dataset = open_hf_text(saved, label="topic", public=0.5)
    assert dataset.classes == ("air", "sea")
    assert sizes(dataset, "private", "holdout", "public") == [16, 4, 20]
    assert open_hf_text(saved, **dataset.options).fingerprint == dataset.fingerprint
    assert dataset.name == f"hf-text:{saved}"


def test_other_splits_are_held_out_or_public(saved):
    dataset = open_hf_text(saved, label="topic", holdout="test", public="extra")
    assert sizes(dataset, "private", "holdout", "public") == [40, 20, 9]  # ten texts of "test" are private
    assert dataset.judging()[1] == ("air", "sea", "land")
    assert torch.bincount(dataset.judging()[0].labels).tolist() == [20, 20, 3]


def test_without_labels_there_is_one_class(saved):
    dataset = open_hf_text(saved)
    assert dataset.classes == ("text",)
    assert sizes(dataset, "private", "holdout") == [36, 4]
    with pytest.raises(DataError, match=r"no split 'public'"):
        dataset.split("public")


def test_one_saved_table_and_a_directory_of_files(tmp_path):
    table().save_to_disk(str(tmp_path / "one"))
    assert sizes(open_hf_text(str(tmp_path / "one")), "private") == [36]
    (tmp_path / "files").mkdir()
    table().to_parquet(str(tmp_path / "files" / "train.parquet"))
    assert open_hf_text(str(tmp_path / "files"), label="topic").classes == ("air", "sea")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "dev"}, "has no split 'dev' (it has train, test, extra)"),
        ({"holdout": "dev"}, "has no split 'dev'"),
        ({"text": "texts"}, "has no column 'texts' (did you mean text=text?)"),
        ({"label": "topics"}, "has no column 'topics' (did you mean label=topic?)"),
        ({"text": "topic"}, "row 0: 'topic' is int, not a text"),
        ({"public": "train"}, "public=train is another split too"),
        ({"holdout": "test", "public": "test"}, "holdout=test is another split too"),
        ({"holdout": "extra", "label": "topic"}, "class 'land' has no private texts"),
        ({"holdout": 1.0}, "holdout=1.0 is no share"),
        ({"holdin": 1}, "unknown option 'holdin', did you mean holdout?"),
    ],
)
def test_wrong_options_are_named(saved, options, words):
    with pytest.raises(DataError) as caught:
        open_hf_text(saved, **options)
    assert words in str(caught.value)


def test_faults_of_the_data(tmp_path):
    with pytest.raises(DataError, match="hf-text needs a data set"):
        open_hf_text(None)
    with pytest.raises(DataError, match="cannot be loaded"):
        open_hf_text(str(tmp_path / "nowhere"))
    for name, data, options, words in (
        ("empty", {"text": ["a", " "]}, {}, "row 1: 'text' is empty"),
        ("none", {"text": ["a", None]}, {}, "row 1: 'text' is NoneType, not a text"),
        ("hidden", {"text": ["a", "b"], "k": [0, -1]}, {"label": "k"}, "some rows have no k"),
        ("floats", {"text": ["a", "b"], "k": [0.5, 1.5]}, {"label": "k"}, "neither integers nor texts"),
    ):
        datasets.Dataset.from_dict(data).save_to_disk(str(tmp_path / name))
        with pytest.raises(DataError, match=words):
            open_hf_text(str(tmp_path / name), **options)


def test_library_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package `datasets` .pip install 'mi-text\[hf\]'"):
        open_hf_text("anything")
