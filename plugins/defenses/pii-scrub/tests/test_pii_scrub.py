"""What is found in hand-made texts and what is not, pseudonyms, and recall against what a data set notes."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch

from mi_defense_pii_scrub.defense import Scrubbing, is_hidden, known_names, recall, tagged
from mi_defense_pii_scrub.finding import FORMED, Found, find, is_iban, passes_luhn
from mi_defense_pii_scrub.pseudonyms import Pseudonyms
from mi_text.datasets.customers import open_customers
from mi_text.datasets.pools import load_pools, words_of
from mi_text.datasets.records import open_records
from mi_text.splits import TextSplit
from micore.configs import make_config
from micore.errors import ConfigError
from micore.kit.training import PartOf

NAMES = known_names(1.0)


def scrubber(**options: Any) -> Scrubbing:
    return Scrubbing(make_config(Scrubbing.Config, options, "pii-scrub"))


def scrubbed(*texts: str, **options: Any) -> list[str]:
    return list(scrubber(**options).adapt_data(TextSplit(texts)).texts)


# finding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail ann.lee+x@mail.example.co.uk.", "Mail [EMAIL]."),
        ("SSN 912-34-5678, or 912 34 5678.", "SSN [SSN], or [SSN]."),
        ("Call 555-012-3456 or (555) 012-3456.", "Call [PHONE] or [PHONE]."),
        ("Ring +49 30 1234567 now", "Ring [PHONE] now"),
        ("card 4111 1111 1111 1111 ends", "card [CARD] ends"),
        ("card 4111-1111-1111-1111", "card [CARD]"),
        ("account DE89 3704 0044 0532 0130 00.", "account [IBAN]."),
        ("account gb82west12345698765432", "account [IBAN]"),
        ("born January 5, 1999", "born [DATE]"),
        ("born 5 january 1999 and 1999-01-05, 1/5/1999, 5.1.99", "born [DATE] and [DATE], [DATE], [DATE]"),
        ("The secret vault code is 349350.", "The secret vault code is [NUMBER]."),
        ("Maria Lopez met Lopez and Maria's son.", "[NAME] met [NAME] and [NAME] son."),
        ("maria lopez lives in bonn", "[NAME] lives in bonn"),
        ("Maria Qwertzui left", "[NAME] left"),
        ("Dr. Qwertzui and Mr Hill left", "Dr. [NAME] and Mr [NAME] left"),
        ("We told Mark Young so.", "We told [NAME] so."),
        ("we told mark young so.", "we told [NAME] so."),
        ("A letter from May Stone.", "A letter from [NAME]."),
    ],
)
def test_personal_data_become_tags(text: str, expected: str) -> None:
    assert scrubbed(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "He paid $61,885 for 3 of 25 items.",
        "Version 1.12.3 of 2024 has 10 parts.",
        "the black dog sees a white stone and may long for young wood",
        "Long days and young people. White walls.",
        "May is warm.",
        "Room 12-34 is on floor 3.",
        "Order 12345 came.",
    ],
)
def test_what_is_nobodys_stays(text: str) -> None:
    assert scrubbed(text) == [text]


def test_numbers_with_wrong_check_digits_are_no_cards_and_no_accounts() -> None:
    kinds = {item.kind for item in find("4111 1111 1111 1112", FORMED, None)}
    assert "card" not in kinds
    assert "iban" not in {item.kind for item in find("DE88 3704 0044 0532 0130 00", FORMED, None)}


def luhn_by_table(digits: str) -> bool:
    table = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    return sum(table[int(d)] if place % 2 else int(d) for place, d in enumerate(reversed(digits))) % 10 == 0


@pytest.mark.parametrize("number", ["4111111111111111", "5500005555555559", "340000000000009", "6011000000000004"])
def test_check_digits_of_cards(number: str) -> None:
    assert passes_luhn(number)
    for last in range(10):
        assert passes_luhn(number[:-1] + str(last)) == luhn_by_table(number[:-1] + str(last))


def test_check_digits_of_accounts() -> None:
    """Examples of the register of ISO 13616, and each with two digits exchanged."""
    for number in ("GB29 NWBK 6016 1331 9268 19", "FR14 2004 1010 0505 0001 3M02 606", "NO93 8601 1117 947"):
        assert is_iban(number)
        assert not is_iban(number[:-2] + number[-1] + number[-2])


def test_places_do_not_overlap_and_are_in_order() -> None:
    split = open_records(None, private=200, holdout=10, public=10).split("private")
    for text in split.texts:
        places = find(text, FORMED, NAMES)
        assert all(one.end <= other.start for one, other in pairwise(places))


def test_names_and_dates_can_be_left() -> None:
    text = "Maria Lopez, born January 5, 1999, called 555-012-3456."
    assert scrubbed(text, names=False) == ["Maria Lopez, born [DATE], called [PHONE]."]
    assert scrubbed(text, dates=False) == ["[NAME], born January 5, 1999, called [PHONE]."]


def test_a_share_of_the_names_is_known_and_a_smaller_one_is_part_of_it() -> None:
    pools = load_pools()
    half, most = known_names(0.5), known_names(0.9)
    assert half.first < most.first < NAMES.first == {name.lower() for name in pools.first}
    assert len(half.last) == pytest.approx(len(pools.last) / 2, rel=0.15)
    assert known_names(0.0).last == frozenset()


# tags and pseudonyms --------------------------------------------------------------------------------------


def test_words_of_one_name_have_one_tag_and_two_names_have_two() -> None:
    places = [Found(0, 3, "name"), Found(4, 7, "name"), Found(9, 12, "name")]
    assert tagged("Ann Lee, Bob.", places) == "[NAME], [NAME]."


def test_a_value_has_the_same_pseudonym_everywhere_and_others_have_others() -> None:
    first, second, third = scrubbed(
        "Maria Lopez has 912-34-5678.", "maria lopez, again.", "Linda Lopez has 912-34-5679.", mode="surrogate"
    )
    names = [re.findall(r"[A-Za-z]{6,}", text) for text in (first, second, third)]
    assert names[1][:2] == [name.lower() for name in names[0][:2]]
    assert names[2][1] == names[0][1]
    assert names[2][0] != names[0][0]
    numbers = [re.search(r"\d{3}-\d{2}-\d{4}", text)[0] for text in (first, third)]  # type: ignore[index]
    assert numbers[0] != numbers[1]
    assert all(number.startswith("9") for number in numbers)
    assert not {"912-34-5678", "912-34-5679"} & set(numbers)


def test_pseudonyms_are_neither_names_of_the_list_nor_words_of_the_texts() -> None:
    split = open_records(None, private=300, holdout=10, public=10).split("private")
    found = scrubber(mode="surrogate").adapt_data(split)
    new = set().union(*map(words_of, found.texts)) - set().union(*map(words_of, split.texts))
    months = {"january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
              "november", "december"}  # fmt: skip
    assert len(new) > 300
    assert not (new - months) & {name.lower() for name in (*load_pools().first, *load_pools().last)}


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        ("card", "4111 1111 1111 1111", r"\d{4} \d{4} \d{4} \d{4}"),
        ("phone", "(555) 012-3456", r"\(\d{3}\) \d{3}-\d{4}"),
        ("date", "January 5, 1999", r"[A-Z][a-z]+ \d, (19|20)\d\d"),
        ("date", "1999-01-05", r"(19|20)\d\d-1[0-2]-1[0-2]"),
        ("email", "ann@example.org", r"[a-z]+\d\d@example\.com"),
        ("number", "349350", r"\d{6}"),
    ],
)
def test_pseudonyms_have_the_form_of_what_they_stand_for(kind: str, value: str, form: str) -> None:
    made = Pseudonyms({value.lower()}).of(kind, value)
    assert re.fullmatch(form, made), made
    assert made != value
    assert kind != "card" or luhn_by_table("".join(re.findall(r"\d", made)))


def test_pseudonyms_do_not_run_out() -> None:
    pseudonyms = Pseudonyms(set())
    assert len({pseudonyms.of("name", f"Name{index}") for index in range(3000)}) == 3000
    assert len({pseudonyms.of("date", "1/1/99")}) == 1


# the training data ----------------------------------------------------------------------------------------


def test_recall_is_counted_on_what_the_data_say() -> None:
    texts = ("Maria Lopez in Bonn", "Zzyzx Lopez in Bonn")
    notes = ({"name": "Maria Lopez", "city": "Bonn"}, {"name": "Zzyzx Lopez"})
    found = [find(text, FORMED, NAMES) for text in texts]
    assert recall(texts, notes, found) == {
        "city": {"values": 1, "hidden": 0, "share": 0.0}, "name": {"values": 2, "hidden": 1, "share": 0.5},
    }  # fmt: skip


def test_a_value_is_hidden_when_all_of_it_is_wherever_it_stands() -> None:
    assert is_hidden("a bc", "bc", [Found(2, 4, "x")])
    assert not is_hidden("a bc", "bc", [Found(2, 3, "x")])
    assert not is_hidden("bc bc", "bc", [Found(0, 2, "x")])
    assert is_hidden("b-c", "b-c", [Found(0, 1, "x"), Found(2, 3, "x")])


def test_the_split_keeps_labels_and_the_facts_that_still_stand() -> None:
    split = TextSplit(
        ("Maria lives in Bonn", "Nobody", "Ann"), torch.tensor([2, 0, 1]), ({"first": "Maria", "city": "Bonn"}, {}, {})
    )
    defense = scrubber()
    found = defense.adapt_data(split)
    assert found.texts == ("[NAME] lives in Bonn", "Nobody", "[NAME]")
    assert found.facts == ({"city": "Bonn"}, {}, {})
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 1]
    facts = defense.facts()
    assert (facts["texts"], facts["texts_changed"], facts["replaced"]) == (3, 2, {"name": 2})
    part = scrubber().adapt_data(PartOf(split, torch.tensor([1, 0])))
    assert (part.texts, part.facts) == (("Nobody", "[NAME] lives in Bonn"), ({}, {"city": "Bonn"}))


@pytest.mark.parametrize("mode", ["tag", "surrogate"])
def test_nothing_of_the_bundled_records_is_left(mode: str) -> None:
    split = open_customers(None, background=200, per_level=4, canaries=2, public=50).split("private")
    defense = scrubber(mode=mode)
    found = defense.adapt_data(split)
    shares = {kind: counted["share"] for kind, counted in defense.facts()["recall"].items()}
    assert shares == dict.fromkeys(("canary", "email", "name", "phone", "ssn"), 1.0)
    assert not any(facts for facts in found.facts)
    assert defense.adapt_data(split).fingerprint == found.fingerprint


def test_names_that_no_list_has_are_missed() -> None:
    split = open_records(None, private=300, holdout=10, public=10).split("private")
    shares = []
    for known in (1.0, 0.5):
        defense = scrubber(known=known)
        defense.adapt_data(split)
        shares.append(defense.facts()["recall"]["name"]["share"])
    assert shares[0] > 0.99
    assert shares[1] < 0.5


def test_texts_act_on_themselves_alone_with_tags() -> None:
    kind = pytest.importorskip("mi_defense_dp_sgd.defense")
    assert scrubber().per_sample_loss
    assert not scrubber(mode="surrogate").per_sample_loss
    assert "adapt_data" in kind.COUPLING


def test_bad_settings_are_refused() -> None:
    for options in ({"mode": "delete"}, {"known": 1.5}):
        with pytest.raises(ConfigError):
            scrubber(**options)
