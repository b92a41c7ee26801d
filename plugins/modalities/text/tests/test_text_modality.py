"""Texts as samples: stored, shown, compared, augmented."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_text.datasets.dataset import TextDataset
from mi_text.modality import TextModality
from mi_text.splits import TextSplit
from micore.errors import UsageError
from micore.runtime import Random

MODALITY = TextModality()


@given(st.lists(st.text(max_size=20), max_size=6))
def test_stored_texts_come_back(texts):
    assert MODALITY.unpack(MODALITY.pack(texts)) == texts


def test_differences_are_marked_and_html_is_escaped():
    found = MODALITY.show_against(["ann lee has <flu>"], ["ann ray has <flu>"], 3)
    assert found == '<ol class="mi-texts"><li><mark>ann</mark> ray <mark>has</mark> <mark>&lt;flu&gt;</mark></li></ol>'


def test_previews_are_one_text_per_line(tmp_path):
    (path,) = MODALITY.export({"a": ["one\ntwo", "three"], "b": []}, tmp_path)
    assert path.read_text(encoding="utf-8") == "one\\ntwo\nthree\n"


def test_augmentation_changes_so_many_words_and_empties_no_text():
    texts = ["a b c d e f g h i j"] * 300 + ["single"]
    changed = MODALITY.augment(texts, "strong", Random(0))
    lengths = [len(text.split()) for text in changed[:300]]
    assert sum(lengths) / 300 == pytest.approx(10 - 9 * 0.1, abs=0.15)
    assert changed[300] == "single"
    assert all(set(text.split()) <= set(texts[0].split()) for text in changed[:300])
    with pytest.raises(UsageError, match="extreme"):
        MODALITY.augment(texts, "extreme", Random(0))


def test_overlap_counts_equal_and_near_texts():
    private = TextSplit(("the cat eats bread in the old house today", "dogs sleep"), torch.zeros(2, dtype=torch.int64))
    public = TextSplit(
        (
            "The cat  eats bread in the old house today",
            "the cat eats bread in the old house today now",
            "the cat likes milk in a new garden today",
            "dogs sleep",
        )
    )
    data = TextDataset(
        name="t", classes=("text",), private=private, holdout=None, public=public, vocabulary=300, max_tokens=16
    )
    found = MODALITY.overlap(data)["public"]
    assert (found["n"], found["equal"], found["near"]) == (4, 2, 1)
    assert found["examples"][-1] == {"index": 1, "private_index": 0}


def test_goals_and_evidence_that_are_not_there_are_refused():
    with pytest.raises(UsageError, match="goal 'structure'"):
        MODALITY.cases("structure", None, ("a",), None)
    with pytest.raises(UsageError, match="has no evidence"):
        MODALITY.cases("class", None, ("a",), None, "masked")
    assert [case.id for case in MODALITY.cases("class", None, ("a", "b"), "b")] == ["class-1"]


def test_splits_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="a text is empty"):
        TextSplit((" ",))
    with pytest.raises(ValueError, match="labels must be"):
        TextSplit(("a",), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 facts for 1 texts"):
        TextSplit(("a",), None, ({}, {}))
