"""What counts as personal data in a text, and what may stand in a hole."""

from __future__ import annotations

import pytest

from mi_attack_pii_extraction.holes import candidates_in, up_to
from mi_attack_pii_extraction.mentions import counts_of, mentioned
from mi_attack_pii_extraction.tagging import PATTERNS, Tagger
from mi_text.datasets.customers import open_customers
from mi_text.evidence import Hole

TAGGER = Tagger(first=frozenset({"ann", "bob"}), last=frozenset({"lee", "o'hara"}))


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("email", "to a.b_1@mail.example.com, or c@d.org.", ["a.b_1@mail.example.com", "c@d.org"]),
        ("email", "no @ here, x@y neither", []),
        ("phone", "555-010-9999 (555) 010-1234 and 1555-010-99990", ["555-010-9999", "(555) 010-1234"]),
        ("ssn", "900-12-3456, 900-12-34567, 1900-12-3456", ["900-12-3456"]),
        ("date", "on March 3, 1999 or march 12, 2001", ["March 3, 1999", "march 12, 2001"]),
        ("amount", "$1,250, $5 and $", ["$1,250", "$5"]),
        ("age", "aged 42, 1999", ["42"]),
        ("name", "Ann Lee met bob o'hara; Ann, Lee and Lee Ann", ["Ann Lee", "bob o'hara"]),
        ("first", "Ann and ann and Cid", ["Ann", "ann"]),
        ("last", "the Lee family", ["Lee"]),
        ("shoe", "size 42", []),
    ],
)
def test_values_of_each_kind_are_found(kind: str, text: str, found: list[str]) -> None:
    assert TAGGER.find(text, kind) == found


def test_numbers_are_of_one_kind_only() -> None:
    text = "555-010-9999 900-12-3456"
    assert TAGGER.find(text, "phone") == ["555-010-9999"]
    assert TAGGER.find(text, "ssn") == ["900-12-3456"]


def test_all_facts_of_the_bundled_records_are_found() -> None:
    private = open_customers(None, background=1, per_level=20, repeats="1", canaries=0, public=1).split("private")
    tagger = Tagger.of()
    for row in range(len(private)):
        for kind, value in private.facts_of(row).items():
            assert value in tagger.find(private.take([row])[0], kind), (kind, value)


def test_names_that_are_told_are_known_beside_the_bundled_ones() -> None:
    tagger = Tagger.of(["Zzyx Qwrt", "Solo"])
    assert tagger.find("zzyx qwrt", "name") == ["zzyx qwrt"]
    assert Tagger.of().find("zzyx qwrt", "name") == []


def test_a_value_counts_once_in_a_text() -> None:
    texts = ["Ann Lee, Ann Lee", "Ann Lee 900-12-3456", "nobody"]
    assert counts_of(texts, TAGGER) == {"Ann Lee": 2, "900-12-3456": 1}
    assert mentioned("a@b.cd Ann Lee", TAGGER) == ["Ann Lee", "a@b.cd"]


# holes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "after", "found"),
    [
        (" Paris on Monday", " on Friday.", "Paris"),
        (" London.", ".", "London"),
        (" Bonn or so", " on it", "Bonn or so"),
        (" Iron city", " on it", "Iron city"),
        (" 27 ", "", "27"),
        (" on it", " on it", ""),
    ],
)
def test_a_continuation_counts_up_to_the_known_text(text: str, after: str, found: str) -> None:
    assert up_to(text, after) == found


def test_candidates_are_of_the_holes_kind_and_not_in_the_text_already() -> None:
    hole = Hole(kind="masked", before="Ann Lee, 900-12-3456, and ", after=".", slot="name")
    proposed = [" Bob Lee. 900-00-0000", " ann lee", " Ann O'Hara, Bob Lee", " someone"]
    assert candidates_in(proposed, hole, TAGGER) == {"Bob Lee": 2, "Ann O'Hara": 1}
    town = Hole(kind="masked", before="lives in ", after=" now", slot="city")
    assert candidates_in([" Bonn now", " Bonn now or", " Rome", " now"], town, TAGGER) == {"Bonn": 2, "Rome": 1}


def test_kinds_with_shapes_or_lists_are_known() -> None:
    assert all(TAGGER.knows(kind) for kind in (*PATTERNS, "name", "first", "last"))
    assert not TAGGER.knows("city")
