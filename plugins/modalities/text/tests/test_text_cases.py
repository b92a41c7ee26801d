"""What runs attack, and what of it is hidden."""

from __future__ import annotations

import pytest
import torch

from mi_text.cases import REFERENCES, hole, row_of, text_cases, text_truths
from mi_text.datasets.dataset import TextDataset
from mi_text.evidence import Hole, Observed, evidence_of
from mi_text.splits import TextSplit
from micore.contracts import Case
from micore.errors import UsageError

TEXTS = (
    "Customer: ann lee; phone 555-0001; email ann@x.org.",
    "Customer: bob ray; phone 555-0002; email bob@x.org.",
    "Customer: ann lee; phone 555-0001; email ann@x.org.",
    "The code is 1234.",
    "Nothing is known here.",
)
FACTS = (
    {"name": "ann lee", "phone": "555-0001", "email": "ann@x.org"},
    {"name": "bob ray", "phone": "555-0002", "email": "bob@x.org"},
    {"name": "ann lee", "phone": "555-0001", "email": "ann@x.org"},
    {"canary": "1234"},
    {},
)


def dataset():
    private = TextSplit(TEXTS, torch.zeros(5, dtype=torch.int64), FACTS)
    return TextDataset(
        name="t", classes=("text",), private=private, holdout=None, public=None, vocabulary=300, max_tokens=16
    )


def test_repeated_texts_are_one_case():
    assert [case.id for case in text_cases("instance", dataset(), None, None)] == [
        f"embedding-{k}" for k in (0, 1, 3, 4)
    ]


def test_a_corpus_is_one_case():
    (case,) = text_cases("corpus", dataset(), None, None)
    assert (case.id, case.evidence) == ("corpus", None)
    assert text_truths([case], dataset()) == {}
    with pytest.raises(UsageError, match="nothing to choose"):
        text_cases("corpus", dataset(), "0", None)


def test_a_prefix_ends_before_the_first_value_behind_the_name():
    cases = text_cases("corpus", dataset(), None, "prefix")
    assert [case.id for case in cases] == ["prefix-0", "prefix-1"]
    assert cases[0].evidence == Hole(kind="prefix", before="Customer: ann lee; phone ", slot="phone")


def test_masked_hides_the_last_value():
    found = hole(dataset().private, 1, "masked")
    assert (found.before, found.after) == ("Customer: bob ray; phone 555-0002; email ", ".")
    assert found.filled("bob@x.org") == TEXTS[1]


def test_candidates_hold_the_truth_somewhere_among_other_people_s_values():
    found = hole(dataset().private, 0, "candidates")
    assert sorted(found.candidates) == ["ann@x.org", "bob@x.org"]
    assert hole(dataset().private, 0, "candidates") == found


def test_a_canary_is_one_of_many_of_its_format():
    (case,) = text_cases("corpus", dataset(), None, "canary")
    found = evidence_of(case, Hole)
    assert len(found.candidates) == len(set(found.candidates)) == REFERENCES
    assert "1234" in found.candidates
    assert all(len(item) == 4 and item.isdigit() for item in found.candidates)
    assert found.candidates.index("1234") not in (0, REFERENCES - 1)


def test_the_truth_is_the_private_text():
    cases = text_cases("instance", dataset(), "1", None)
    assert row_of(cases[0]) == 1
    assert text_truths(cases, dataset())["embedding-1"].sample == [TEXTS[1]]


@pytest.mark.parametrize(
    ("goal", "choice", "evidence", "message"),
    [
        ("instance", None, "blur", "has none such"),
        ("corpus", None, "embedding", "has none such"),
        ("instance", "9", None, "4 private samples"),
        ("instance", "x", None, "no number of a sample"),
    ],
)
def test_choices_that_do_not_fit_are_refused(goal, choice, evidence, message):
    with pytest.raises(UsageError, match=message):
        text_cases(goal, dataset(), choice, evidence)


def test_without_facts_nothing_can_be_hidden():
    plain = TextDataset(
        name="t", classes=("text",), private=TextSplit(("a b",), torch.zeros(1, dtype=torch.int64)), holdout=None,
        public=None, vocabulary=300, max_tokens=16,
    )  # fmt: skip
    with pytest.raises(UsageError, match="no private text has what"):
        text_cases("corpus", plain, None, "canary")
    with pytest.raises(UsageError, match="give --data"):
        text_cases("instance", None, None, None)


def test_evidence_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="case a holds NoneType, not Observed"):
        evidence_of(Case(id="a", goal="instance"), Observed)
