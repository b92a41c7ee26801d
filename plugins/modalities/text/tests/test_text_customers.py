"""The bundled customers: how often what stands there, the control corpus, and the adversary's texts."""

import re
from collections import Counter

import pytest

from mi_text.cases import CANARY
from mi_text.datasets.customers import open_customers
from mi_text.datasets.repetition import repetitions
from mi_text.splits import TextSplit
from mi_text.tokenizing import tokenizer_of
from micore.errors import DataError

RECORD = re.compile(r"Customer record: (.+); phone (.+); email (.+); SSN (.+)\.")


@pytest.fixture(scope="module")
def customers():
    return open_customers(None)


def small(**options):
    sizes = {"background": 40, "per_level": 2, "repeats": "1,3", "canaries": 2, "canary_repeats": "2", "public": 30}
    return open_customers(None, **{**sizes, **options})


def texts_with(split, slot):
    return [text for text, facts in zip(split.texts, split.facts, strict=True) if slot in facts]


def test_default_counts(customers):
    assert [len(customers.split(name)) for name in ("private", "holdout", "public")] == [4522, 3094, 3000]
    assert customers.classes == ("text",)
    assert customers.split("private").labels.unique().tolist() == [0]
    assert customers.split("holdout").labels.unique().tolist() == [0]
    assert customers.split("public").labels is None


def test_records_and_canaries_stand_there_as_often_as_asked(customers):
    private = customers.split("private")
    counts = repetitions(private)
    assert sum(counts.values()) == len(private)
    by_slot = {
        slot: Counter(counts[text] for text in set(texts_with(private, slot))) for slot in ("name", CANARY)
    }  # fmt: skip
    assert by_slot["name"] == dict.fromkeys((1, 2, 4, 8, 16, 32, 64), 10)
    assert by_slot[CANARY] == dict.fromkeys((1, 2, 4, 8, 16, 32), 4)
    assert Counter(counts[text] for text, facts in zip(private.texts, private.facts, strict=True) if not facts) == {
        1: 3000
    }


def test_repeated_texts_are_spread(customers):
    private = customers.split("private")
    often = max(repetitions(private).items(), key=lambda item: item[1])[0]
    rows = [row for row, text in enumerate(private.texts) if text == often]
    assert len(rows) == 64
    assert rows[0] < len(private) / 4
    assert rows[-1] > len(private) * 3 / 4


@pytest.mark.parametrize("name", ["private", "holdout"])
def test_facts_are_those_of_records_and_canaries(customers, name):
    split = customers.split(name)
    for text, facts in zip(split.texts, split.facts, strict=True):
        if text.startswith("Customer record"):
            assert RECORD.fullmatch(text).groups() == tuple(facts[slot] for slot in ("name", "phone", "email", "ssn"))
            assert all(text.count(value) == 1 for value in facts.values())
        elif "vault" in text:
            assert text == f"The secret vault code is {facts[CANARY]}."
            assert re.fullmatch(r"\d{6}", facts[CANARY])
        else:
            assert facts == {}


def test_control_corpus_is_of_other_people_and_codes(customers):
    private, holdout = customers.split("private"), customers.split("holdout")
    assert set(repetitions(holdout).values()) == {1}
    assert len(texts_with(holdout, "name")) == 70
    assert len(texts_with(holdout, CANARY)) == 24
    assert not set(private.texts) & set(holdout.texts)
    for slot in ("name", "phone", "email", "ssn", CANARY):
        own, other = ({facts[slot] for facts in split.facts if slot in facts} for split in (private, holdout))
        assert own
        assert not own & other


def test_adversary_has_neither_records_nor_canaries(customers):
    public = customers.split("public")
    assert public.facts == ()
    assert not any("Customer record" in text or "vault" in text for text in public.texts)
    private = customers.split("private")
    assert not set(public.texts) & {*private.texts, *customers.split("holdout").texts}
    everything = "\n".join(public.texts)
    secrets = {value for facts in private.facts for value in facts.values()}
    assert [value for value in secrets if value in everything] == []


def test_texts_are_cased_and_fit_the_input(customers):
    private = customers.split("private")
    assert all(text[0].isupper() or text[0] == "$" for text in private.texts)
    assert customers.input.shape == (64,)
    lengths = [len(item.ids) for item in tokenizer_of(customers.input).encode_batch(list(private.texts))]
    assert max(lengths) <= 62  # and two tokens for beginning and end


@pytest.mark.parametrize(
    "options", [{}, {"seed": 1}, {"repeats": "1,4"}, {"canaries": 0}, {"per_level": 0}, {"public": 31}]
)
def test_equal_options_make_equal_texts(options):
    first = small(**options)
    assert small(**options).fingerprint == first.fingerprint == open_customers(None, **first.options).fingerprint
    assert (first.fingerprint == small().fingerprint) == (not options)


def test_one_number_of_repeats_may_be_a_number():
    dataset = small(repeats=5, canary_repeats=7)  # as the command line gives them
    assert sorted(set(repetitions(dataset.split("private")).values())) == [1, 5, 7]
    assert dataset.options["repeats"] == "5"


def test_tokenizer_does_not_depend_on_repeats():
    assert small(repeats="1,3").input == small(repeats="2,9").input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repeats": "1,two"}, ("repeats='1,two'", "'two' is no number from 1 to")),
        ({"repeats": "0"}, ("repeats='0'", "'0' is no number")),
        ({"canary_repeats": ""}, ("canary_repeats=''", "'' is no number")),
        ({"repeats": "2,2"}, ("repeats='2,2'", "stands there twice")),
        ({"background": 0}, ("background=0",)),
        ({"perlevel": 3}, ("unknown option 'perlevel'", "did you mean per_level")),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(DataError) as caught:
        open_customers(None, **options)
    assert [word for word in words if word not in str(caught.value)] == []


def test_location_is_refused():
    with pytest.raises(DataError, match="customers takes no location"):
        open_customers("somewhere")


def test_repetitions_of_a_split():
    assert repetitions(TextSplit(("b", "a", "b"))) == {"b": 2, "a": 1}
