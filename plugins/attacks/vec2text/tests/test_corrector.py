"""The corrector's network and the rounds, on hand-made guesses."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_attack_vec2text.corrector import CONDITIONS, Corrector, Outputs, begin, prefix, train_corrector
from mi_attack_vec2text.rounds import FOUND, Course, Plan, correct, filled, write_round
from mi_text.decoder import Decoder
from mi_text.guesses import Guesses
from mi_text.inverting import EMBEDDING, TINY, Inverter, InverterConfig, hypothesis_size, read_tokenizer
from mi_text.public_embeddings import Pairs
from mi_text.steps import StepPlan, train_steps
from mi_text.tokenizing import train_tokenizer
from micore.contracts import Case
from micore.runtime import Random, Runtime
from micore.threat import Ledger

CONFIG = InverterConfig(**{**TINY, "vocabulary": 300, "width": 16})
RUNTIME = Runtime(device=torch.device("cpu"), tile=4)
TEXTS = ("red cat", "blue dog", "grey cow", "black bird")
VECTORS = torch.eye(4)


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    tokenizer = train_tokenizer(TEXTS, CONFIG.vocabulary)
    with RUNTIME.seeded("hypothesis"):
        decoder = Decoder(hypothesis_size(CONFIG, tokenizer), {EMBEDDING: (4, 1)})
    return Inverter(
        decoder=decoder.eval().requires_grad_(False), tokenizer=read_tokenizer(tokenizer),
        statistics=[torch.zeros(4), torch.ones(1)], max_tokens=CONFIG.max_tokens, runtime=RUNTIME,
    )  # fmt: skip


# the network ----------------------------------------------------------------------------------------------


def test_it_begins_as_the_hypothesis(inverter: Inverter) -> None:
    decoder, known = begin(inverter, CONFIG), inverter.decoder
    values = Random(1).normal((3, 4))
    for condition in CONDITIONS:
        assert torch.equal(decoder.conditions[condition](values), known.conditions[EMBEDDING](values))
    places = decoder.network.positions.weight
    assert len(places) == 2 * CONFIG.max_tokens + 3
    assert torch.equal(places[-(1 + CONFIG.max_tokens) :], known.network.positions.weight)
    assert torch.equal(decoder.network.tokens.weight, known.network.tokens.weight)
    context = torch.zeros(3, CONFIG.max_tokens, dtype=torch.int64)
    found = prefix(decoder, context, values, values)
    assert found.shape == (3, CONFIG.max_tokens + 3, 16)
    evidence = known.conditions[EMBEDDING](values)
    assert torch.equal(found[:, -1:], evidence), "the evidence stands where the text begins"
    assert torch.equal(found[:, -3:-2], evidence), "the answer to the guess"
    assert torch.allclose(found[:, -2:-1], known.conditions[EMBEDDING](torch.zeros(3, 4))), "no difference"


def test_it_learns_from_wrong_guesses_alone(inverter: Inverter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guess tells the answer, the evidence nothing: only a corrector that reads the guess can know it."""
    seen: list[int] = []

    def watched(*arguments: Any) -> list[float]:
        seen.append(len(arguments[2]))
        return train_steps(*arguments)

    monkeypatch.setattr("mi_attack_vec2text.corrector.train_steps", watched)
    pairs = Pairs(texts=TEXTS, embeddings=torch.ones(4, 4))
    outputs = Outputs(texts=["blue dog", "grey cow", "red cat", "black bird"], embeddings=torch.ones(4, 4))
    plan = StepPlan(steps=150, batch_size=4, learning_rate=1e-2)
    state = train_corrector(inverter, CONFIG, plan, pairs, outputs)
    assert seen == [3], "the last guess is right"
    restored = Corrector.restore(inverter, CONFIG, state)
    ones, greedy = torch.ones(3, 4), torch.zeros(CONFIG.max_tokens, 3)
    assert restored.write(outputs.texts[:3], ones, ones, 0.0, greedy) == list(TEXTS[:3])


def test_guesses_that_are_all_right_are_learned_all_the_same(inverter: Inverter) -> None:
    pairs, plan = Pairs(texts=TEXTS, embeddings=VECTORS), StepPlan(steps=2, batch_size=4)
    state = train_corrector(inverter, CONFIG, plan, pairs, Outputs(texts=TEXTS, embeddings=VECTORS))
    assert len(state["history"]) == 2


# the rounds -----------------------------------------------------------------------------------------------


class Ladder:
    """A corrector that makes a text one letter longer; its samples are a letter shorter."""

    def __init__(self) -> None:
        self.inverter = SimpleNamespace(max_tokens=4)
        self.asked: list[list[str]] = []

    def write(
        self, guesses: Sequence[str], answers: Tensor, evidence: Tensor, temperature: float, uniform: Tensor
    ) -> list[str]:
        assert answers.shape == evidence.shape == (len(guesses), 2)
        assert uniform.shape == (4, len(guesses))
        for text, answer in zip(guesses, answers, strict=True):
            assert torch.equal(answer, angle(text)), "each guess with the target's answer to it"
        self.asked.append(list(guesses))
        return [text + "a" if temperature == 0 else text[:-1] for text in guesses]


def angle(text: str) -> Tensor:
    turned = torch.tensor(0.2 * len(text))
    return torch.stack([turned.cos(), turned.sin()])


class Clock:
    """A target that embeds a text by its length."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def scores(self, texts: Sequence[str]) -> Tensor:
        self.ledger.charge(queries=len(texts))
        return torch.stack([angle(text) for text in texts])


def guesses(name: str, wanted: int) -> Guesses:
    return Guesses(case=Case(id=name, goal="instance"), evidence=angle("a" * wanted), texts=["a"], likelihoods=[-1.0])


def test_rounds_climb_to_the_text_and_stop_there() -> None:
    corrector, target = Ladder(), Clock()
    plan = Plan(rounds=6, beam=2, branches=2, temperature=0.7)
    near, far = correct([guesses("near", 3), guesses("far", 12)], corrector, target, plan, RUNTIME)  # type: ignore[arg-type]
    assert near.samples[0] == "aaa"
    assert float(near.scores[0]) >= FOUND
    assert near.history["cosine"] == sorted(near.history["cosine"])
    assert len(near.history["cosine"]) == 3, "two rounds, and no more"
    assert far.samples == ["a" * 7, "a" * 6]
    assert far.complete
    assert near.complete
    assert [stand.queries for stand in far.snapshots] == [1, 2, 3, 4, 5, 6, 7], "the empty text is not asked about"
    assert target.ledger.cases["near"].queries == 3
    assert target.ledger.shared.queries == 0


def test_a_round_begins_with_the_nearest_texts() -> None:
    corrector, target = Ladder(), Clock()
    courses = [Course(guesses=guesses("one", 9)), Course(guesses=guesses("two", 2))]
    courses[0].ask(target, ["a", "aaaa", "aaa"], beam=2)  # type: ignore[arg-type]
    courses[1].ask(target, ["aaaaa"], beam=2)  # type: ignore[arg-type]
    plan = Plan(rounds=1, beam=2, branches=3, temperature=0.7)
    written = write_round(courses, corrector, plan, 0, RUNTIME)  # type: ignore[arg-type]
    assert corrector.asked[0] == ["aaaa", "aaa", "aaaaa"]
    assert written == [["aaaaa", "aaa", "aaa", "aaaa", "aa", "aa"], ["aaaaaa", "aaaa", "aaaa"]]


def test_a_case_of_empty_texts_has_nothing_to_correct() -> None:
    course = Course(guesses=guesses("empty", 3))
    course.ask(Clock(), [""], beam=2)  # type: ignore[arg-type]
    plan = Plan(rounds=1, beam=2, branches=2, temperature=0.7)
    assert write_round([course], Ladder(), plan, 0, RUNTIME) == [[]]  # type: ignore[arg-type]
    assert course.given(2, complete=True).samples == ["", ""]


def test_texts_are_filled_up_with_the_last() -> None:
    texts, scores = filled(["x", "y"], torch.tensor([0.5, 0.4]), 4)
    assert texts == ["x", "y", "y", "y"]
    assert scores.tolist() == pytest.approx([0.5, 0.4, 0.4, 0.4])
    assert filled(["x", "y"], torch.tensor([0.5, 0.4]), 1)[0] == ["x"]
