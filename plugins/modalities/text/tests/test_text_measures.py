"""Measures of texts against hand-made strings and slow oracles."""

from __future__ import annotations

import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_text.measures import (
    best,
    common_subsequence,
    edit_distance,
    edit_similarity,
    exact_match,
    holds,
    rouge_1,
    rouge_l,
    token_overlap,
    words,
)

TRUE = "Ann Lee lives in Bonn; phone 555-0199."
short = st.text(alphabet="ab1 ", max_size=12)


def slow_subsequence(one: str, two: str) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if i == len(one) or j == len(two):
            return 0
        if one[i] == two[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


def slow_distance(one: str, two: str) -> int:
    if not one or not two:
        return len(one) + len(two)
    return min(
        slow_distance(one[1:], two[1:]) + (one[0] != two[0]),
        slow_distance(one[1:], two) + 1,
        slow_distance(one, two[1:]) + 1,
    )


def test_words_are_runs_of_letters_or_digits_and_single_signs() -> None:
    assert words("Mail: a_b.C9@x-y.org!") == [
        "mail", ":", "a", "_", "b", ".", "c", "9", "@", "x", "-", "y", ".", "org", "!",
    ]  # fmt: skip
    assert words("O'Neil ÉCOLE 2²") == ["o", "'", "neil", "école", "2", "²"]
    assert words("e\u0301") == ["é"]  # composed and decomposed letters are the same
    assert words(" \n") == []


@given(st.text(max_size=40))
def test_words_keep_every_sign_but_spaces(text: str) -> None:
    assert "".join(words(text)) == "".join(unicodedata.normalize("NFC", text).lower().split())


def test_precision_is_of_the_predicted_and_recall_of_the_true_words() -> None:
    """Public code has had the two the wrong way round."""
    found = token_overlap("ann lee", "ann lee lives here")
    assert (found.precision, found.recall, found.f1) == pytest.approx((1.0, 0.5, 2 / 3))
    longer = token_overlap("ann lee lives here", "ann lee")
    assert (longer.precision, longer.recall) == (0.5, 1.0)


def test_words_count_as_often_as_they_stand_there() -> None:
    found = token_overlap("the the the cat", "the cat sat")
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 4, 2 / 3, 4 / 7))


@given(short, short)
def test_overlap_is_that_of_lists_from_which_words_are_struck(predicted: str, true: str) -> None:
    left = words(true)
    shared = 0
    for word in words(predicted):
        if word in left:
            left.remove(word)
            shared += 1
    found = token_overlap(predicted, true)
    assert found.precision == (shared / len(words(predicted)) if shared else 0.0)
    assert found.recall == (shared / len(words(true)) if shared else 0.0)
    expected = 2 / (1 / found.precision + 1 / found.recall) if shared else 0.0
    assert found.f1 == pytest.approx(expected)


def test_nothing_is_like_nothing() -> None:
    for measure in (rouge_1, rouge_l):
        assert measure("", TRUE) == 0.0
        assert measure(TRUE, "?!") == 0.0
    assert token_overlap("", TRUE).f1 == 0.0


def test_exact_match_leaves_case_spaces_and_if_told_punctuation_aside() -> None:
    assert exact_match(" ann LEE lives in Bonn;\nphone 555-0199. ", TRUE)
    assert not exact_match("Ann Lee lives in Bonn, phone 555 0199", TRUE)
    assert exact_match("Ann Lee lives in Bonn, phone 555 0199", TRUE, punctuation=False)
    assert not exact_match("Ann Lee lives in Bonn, phone 555 0198", TRUE, punctuation=False)
    assert not exact_match("", TRUE)


def test_rouge_of_hand_made_texts() -> None:
    """Of Lin (2004), section 3: the second candidate has the words in another order."""
    true = "police killed the gunman"
    assert rouge_l("police kill the gunman", true) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", true) == pytest.approx(2 / 4)
    assert rouge_1("the gunman kill police", true) == pytest.approx(3 / 4)
    assert rouge_l("Police, kill the GUNMAN!", true) == pytest.approx(3 / 4)
    assert rouge_l("police killed the gunman today in Bonn", true) == pytest.approx(2 * 4 / (7 + 4))


@given(short, short)
def test_common_subsequence_is_that_of_a_recursion(one: str, two: str) -> None:
    assert common_subsequence(one, two) == slow_subsequence(one, two)


@given(st.text(alphabet="ab", max_size=5), st.text(alphabet="ab", max_size=5))
def test_edit_distance_is_that_of_a_recursion(one: str, two: str) -> None:
    assert edit_distance(one, two) == slow_distance(one, two)


def test_edit_similarity() -> None:
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("", "ab") == 0.0
    assert edit_similarity(TRUE, TRUE) == 1.0


@given(short, short)
def test_rouge_1_is_the_overlap_of_counts(one: str, two: str) -> None:
    """Texts of letters and digits alone, so that punctuation plays no part."""
    shared = (Counter(words(one)) & Counter(words(two))).total()
    total = len(words(one)) + len(words(two))
    assert rouge_1(one, two) == pytest.approx(2 * shared / total if total else 0.0)
    assert rouge_l(one, two) <= rouge_1(one, two)
    assert (
        2 * SequenceMatcher(None, words(one), words(two)).find_longest_match().size <= rouge_l(one, two) * total + 1e-9
    )


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("call 5 5 5 - 0 1 99 now", "555-0199", True),
        ("I am ANN  lee", "Ann Lee", True),
        ("annlee", "Ann Lee", True),
        ("age 47", "7", False),
        ("7 of 47", "7", True),
        ("Hannah", "Ann", False),
        ("aged 34years", "34", True),
        ("$1,200 paid", "$1,200", True),
        ("$11,200 paid", "1,200", False),
        ("555-0199", "555-019", False),
        ("mail ann@x.org.", "ann@x.org", True),
        ("mail joann@x.org", "ann@x.org", False),
        ("a+b", "a.b", False),
        ("", "x", False),
        ("x", " ", False),
    ],
)
def test_a_value_stands_in_a_text_by_itself(text: str, value: str, expected: bool) -> None:
    assert holds(text, value) is expected


def test_the_best_sample_is_the_first() -> None:
    assert best(["one", "two"]) == "one"
    assert best([]) == ""
