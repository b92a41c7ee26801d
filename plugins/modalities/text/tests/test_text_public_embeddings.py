"""Public texts with their embeddings: what they cost, and what retrieval gives."""

from __future__ import annotations

import pytest
import torch

from mi_text.asking import embed
from mi_text.evidence import Observed
from mi_text.public_embeddings import PROBES, nearest_public, observed_embeddings, public_pairs
from mi_text.splits import TextSplit
from mi_text.toy import toys, word_encoder
from micore.contracts import Case
from micore.errors import UsageError
from micore.runtime import Runtime
from micore.shelf import Shelf
from micore.target import Target
from micore.threat import Access, Ledger

TOY = next(toy for toy in toys() if toy.goals == ("instance",))
RUNTIME = Runtime(device=torch.device("cpu"))


def target():
    from mi_text.adapter import TextAdapter

    spec = TOY.dataset.input
    return Target(
        word_encoder(1, spec), access=Access.SCORES, adapter=TextAdapter(spec), input_spec=spec, classes=("text",),
        ledger=Ledger(), runtime=RUNTIME, role="encoder",
    )  # fmt: skip


def test_texts_are_asked_once_each_and_answered_in_order():
    asked = target()
    found = embed(asked, ["red cat", "blue dog", "red cat"], batch=1)
    assert asked.ledger.total.queries == 2
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[1:2], asked.scores(["blue dog"]))


def test_every_public_text_is_charged_also_when_another_attack_has_asked_before(tmp_path):
    public, runtime = TOY.dataset.split("public"), Runtime(device=torch.device("cpu"), shelf=Shelf(tmp_path))
    first, second = target(), target()
    one, other = (public_pairs(asked, public, 100, runtime) for asked in (first, second))
    assert torch.equal(one.embeddings, other.embeddings)
    assert first.ledger.total.queries == second.ledger.total.queries == 100
    assert len(one.texts) == 100


def test_few_texts_are_enough():
    pairs = public_pairs(target(), TextSplit(("red cat", "red cat", "blue dog")), None, RUNTIME)
    assert pairs.texts == ("red cat", "blue dog")
    assert len(pairs.texts) < PROBES


def test_without_public_texts_there_is_nothing_to_learn_from():
    with pytest.raises(UsageError, match="learns from public texts"):
        public_pairs(target(), None, None, RUNTIME)


def test_retrieval_gives_the_text_with_the_nearest_embedding():
    asked = target()
    pairs = public_pairs(asked, TextSplit(("red cat eats milk", "blue dog sees corn")), None, RUNTIME)
    values = embed(asked, ["red cat eats corn"])[0]
    (found,) = nearest_public(
        [Case(id="a-0", goal="instance", evidence=Observed(kind="embedding", values=values))], pairs
    )
    assert found.samples == ["red cat eats milk"]


def test_evidence_of_another_width_is_refused():
    case = Case(id="a-0", goal="instance", evidence=Observed(kind="embedding", values=torch.zeros(5)))
    with pytest.raises(UsageError, match="5 dimensions; the attack was prepared for 64"):
        observed_embeddings([case], 64)
