"""The bundled records: determinism, facts that stand in their texts, values that stand in one split only."""

import re

import pytest
import torch

from mi_text.datasets.plain import PLAIN, VALUES
from mi_text.datasets.pools import words_of
from mi_text.datasets.records import NEW_NAMES, open_records
from mi_text.datasets.templates import TOPICS
from mi_text.datasets.writing import SLOTS
from mi_text.tokenizing import tokenizer_of
from micore.contracts import Dataset, Split
from micore.errors import DataError

NAMES = ("private", "holdout", "public")
OF_ONE_PERSON = ("name", "email", "phone", "ssn")


@pytest.fixture(scope="module")
def records():
    return open_records(None)


def small(**options):
    return open_records(None, **{"private": 40, "holdout": 30, "public": 400, **options})


def values(split, slot):
    return {facts[slot] for facts in split.facts if slot in facts}


def form(text, facts):
    """The text with its slots in place of their values."""
    for slot, value in facts.items():
        text = text.replace(value, "{" + slot + "}")
    return text


def lower_forms(topic_forms):
    return {template.text.lower() for template in topic_forms}


def test_default_counts_and_contract(records):
    assert isinstance(records, Dataset)
    assert isinstance(records.split("public"), Split)
    assert [len(records.split(name)) for name in NAMES] == [500, 300, 20_000]
    assert records.classes == ("contact", "health", "work", "money", "travel")
    assert records.split("public").labels is None
    assert torch.bincount(records.split("private").labels).tolist() == [100] * 5
    assert torch.bincount(records.split("holdout").labels).tolist() == [60] * 5
    assert records.judging() == (records.split("private"), records.classes)
    assert records.modality == "text"


def test_labels_are_the_topics_of_the_texts(records):
    private = records.split("private")
    for text, label, facts in zip(private.texts, private.labels.tolist(), private.facts, strict=True):
        assert form(text, facts) in lower_forms(TOPICS[records.classes[label]])


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_stands_once_in_its_text(records, name):
    split = records.split(name)
    assert {slot for facts in split.facts for slot in facts} == set(SLOTS)
    for text, facts in zip(split.texts, split.facts, strict=True):
        assert facts
        assert text == text.lower()
        assert [slot for slot, value in facts.items() if text.count(value) != 1] == []


def test_no_text_and_nobodys_data_are_in_two_splits(records):
    splits = [records.split(name) for name in NAMES]
    texts = [text for split in splits for text in split.texts]
    assert len(set(texts)) == len(texts)
    for slot in OF_ONE_PERSON:
        found = [values(split, slot) for split in splits]
        assert min(map(len, found)) >= 10
        assert sum(map(len, found)) == len(set.union(*found))
    public = "\n".join(records.split("public").texts)
    assert [name for name in values(records.split("private"), "name") if name in public] == []


def test_last_names_are_seen_unless_they_are_new(records):
    def last(split):
        return {name.split()[1] for name in values(split, "name")} | values(split, "last")

    public = set().union(*map(words_of, records.split("public").texts))
    assert len(last(records.split("private")) & public) > 200
    other = open_records(None, names="new")
    public = set().union(*map(words_of, other.split("public").texts))
    new = last(other.split("private")) | last(other.split("holdout"))
    assert 90 < len(new) <= NEW_NAMES
    assert new & public == set()


def test_private_templates_can_be_new():
    dataset = open_records(None, templates="new", public=2000)
    forms = {name: {form(*pair) for pair in zip(split.texts, split.facts, strict=True)} for name, split in (
        (name, dataset.split(name)) for name in NAMES
    )}  # fmt: skip
    assert forms["private"] == forms["holdout"]
    assert len(forms["private"]) == 10
    assert len(forms["public"]) == 25
    assert forms["private"] & forms["public"] == set()


def test_public_texts_can_be_of_another_domain():
    inside, outside = small(), small(domain="out")
    assert outside.split("private").texts == inside.split("private").texts
    public = outside.split("public")
    assert public.facts == ()
    assert len(set(public.texts)) == 400
    assert not any(re.search(r"555-|@|\$", text) for text in public.texts)
    private = set().union(*map(words_of, inside.split("private").texts))
    shared = private & set().union(*map(words_of, public.texts))
    assert len(shared) < 40, sorted(shared)  # "the", "and" and their like


def test_other_domain_has_enough_sentences():
    for template in PLAIN:
        n = 1
        for slot in template.slots:
            n *= len(VALUES[slot])
        assert n > 3 * 100_000 / len(PLAIN), template.text


@pytest.mark.parametrize(
    "options",
    [{}, {"seed": 3}, {"names": "new"}, {"templates": "new"}, {"domain": "out"}, {"private": 41}, {"public": 401}],
)
def test_equal_options_make_equal_texts(options):
    first, second = small(**options), small(**options)
    assert first.fingerprint == second.fingerprint
    assert first.split("public").texts == second.split("public").texts
    assert (first.fingerprint == small().fingerprint) == (not options)
    assert open_records(None, **first.options).fingerprint == first.fingerprint


def test_more_public_texts_change_no_other():
    few, many = small(), small(public=500)
    assert many.split("public").texts[:400] == few.split("public").texts
    assert many.split("private").fingerprint == few.split("private").fingerprint


def test_numbers_belong_to_nobody(records):
    private = records.split("private")
    assert all(re.fullmatch(r"555-\d{3}-\d{4}", phone) for phone in values(private, "phone"))
    assert all(re.fullmatch(r"9\d\d-[0-4]\d-\d{4}", ssn) for ssn in values(private, "ssn"))
    assert all(re.search(r"@example\.(com|net|org)$", email) for email in values(private, "email"))


def test_texts_fit_the_input(records):
    assert records.input.shape == (40,)
    assert records.input is records.input
    tokenizer = tokenizer_of(records.input)
    assert tokenizer.get_vocab_size() == 2048
    lengths = [len(item.ids) for item in tokenizer.encode_batch(list(records.split("private").texts))]
    assert max(lengths) <= 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"privat": 9}, ("records: unknown option 'privat'", "did you mean private", "options: ")),
        ({"private": 4}, ("private=4", "greater than or equal to 5")),
        ({"public": 0}, ("public=0",)),
        ({"names": "old"}, ("names='old'", "'seen' or 'new'")),
        ({"templates": "x", "domain": "y"}, ("templates='x'", "domain='y'")),
        ({"vocabulary": 10}, ("vocabulary=10",)),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(DataError) as caught:
        open_records(None, **options)
    assert [word for word in words if word not in str(caught.value)] == []


def test_location_is_refused():
    with pytest.raises(DataError, match="records takes no location"):
        open_records("somewhere")


def test_unknown_split_names_those_there_are(records):
    with pytest.raises(DataError, match=r"no split 'test'.*private, holdout, public"):
        records.split("test")
