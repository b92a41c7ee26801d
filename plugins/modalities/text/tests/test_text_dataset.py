"""The data set itself: splits, judging, input."""

import pytest
import torch

from mi_text.datasets.dataset import TextDataset
from mi_text.splits import TextSplit
from micore.errors import DataError


def split(*texts, labels=None):
    return TextSplit(texts, None if labels is None else torch.tensor(labels))


def dataset(**parts):
    given = {
        "classes": ("a", "b"), "private": split("one", "two", labels=[0, 1]), "holdout": None, "public": split("three"),
    }  # fmt: skip
    return TextDataset(name="toy", vocabulary=300, max_tokens=8, **{**given, **parts})


def test_others_are_judged_under_further_labels():
    made = dataset(others=split("four", "five", labels=[1, 0]), other_classes=("c", "d"))
    judged, classes = made.judging()
    assert classes == ("a", "b", "c", "d")
    assert judged.texts == ("one", "two", "four", "five")
    assert judged.labels.tolist() == [0, 1, 3, 2]


def test_input_is_of_private_and_public_texts():
    made = dataset()
    assert made.input.shape == (8,)
    assert made.input is made.input
    assert dataset(private=split("two", "one", "one", labels=[1, 0, 0])).input == made.input
    assert dataset(holdout=split("six", labels=[0])).input == made.input


def test_fingerprint_sees_every_split():
    made = {
        dataset().fingerprint,
        dataset(public=None).fingerprint,
        dataset(holdout=split("six", labels=[0])).fingerprint,
        dataset(private=split("one", "two", labels=[1, 0])).fingerprint,
        dataset(classes=("a", "c")).fingerprint,
    }
    assert len(made) == 5


@pytest.mark.parametrize("name", ["holdout", "public"])
def test_splits_that_are_missing_or_empty(name):
    with pytest.raises(DataError, match=f"toy has no split '{name}' .it has private"):
        dataset(**{name: None}).split(name)
    with pytest.raises(DataError, match=f"toy: no {name} texts"):
        dataset(**{name: TextSplit((), torch.zeros(0, dtype=torch.int64))})


def test_private_texts_need_labels():
    with pytest.raises(ValueError, match="need labels"):
        dataset(private=split("one"))
