"""Continuations of beginnings: their losses, and the chance that sampling finds them, by enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_lm_extraction.prefixes import (
    continuations,
    draws_needed,
    sequence_probability,
    suffix_losses,
    suffix_probability,
)
from mi_text.adapter import TextAdapter
from mi_text.language_model import CausalLanguageModel
from mi_text.sampling import Sampling, choose
from mi_text.tokenizing import BEGIN_ID, END_ID, PAD_ID, text_input, train_tokenizer
from mi_text.transformer import Size
from micore.errors import ConfigError
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))


class Letters:
    """A language model whose tokens are letters: each costs its place in the text, and the end 100."""

    def __init__(self, following: Sequence[str] = ()) -> None:
        self.following = list(following)
        self.prompts: list[str] = []

    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        return [torch.tensor([*(-float(place) for place in range(len(text))), -100.0]) for text in texts]

    def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
        self.prompts += prompts
        return [self.following.pop(0) for _ in prompts]


def test_the_loss_is_that_of_all_tokens_behind_the_beginning_and_of_the_end() -> None:
    losses = suffix_losses(Letters(), "abc", ["abcde", "abcdef"])
    assert losses.tolist() == pytest.approx([(3 + 4 + 100) / 3, (3 + 4 + 5 + 100) / 4])


def test_the_loss_leaves_the_space_in_front_to_what_follows() -> None:
    assert suffix_losses(Letters(), "abc ", ["abc d"]).tolist() == pytest.approx([(3 + 4 + 100) / 3])


def test_texts_hold_the_beginning_and_come_once() -> None:
    model = Letters([" 27", " 27", "28", "  29 x"])
    assert continuations(model, "code ", 3, Sampling(), Random(0)) == ["code 27", "code 28", "code 29 x"]
    assert model.prompts == ["code"] * 4
    assert continuations(Letters(["ing"]), "walk", 0, Sampling(), Random(0)) == ["walking"]


# chances --------------------------------------------------------------------------------------------------

VOCABULARY = 7  # five special tokens, of which three can be drawn, and two others
SAMPLINGS = [
    Sampling(),
    Sampling(top_k=2),
    Sampling(top_p=0.7),
    Sampling(temperature=0.5, top_k=3, top_p=0.9),
    Sampling(hot=4.0, hot_tokens=2),
]


def distributions(steps: int) -> Tensor:
    return (1.5 * Random(8).normal((steps, VOCABULARY))).softmax(dim=1)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_chances_of_all_sequences_sum_to_one(sampling: Sampling) -> None:
    rows = distributions(3)
    sequences = itertools.product(range(VOCABULARY), repeat=3)
    chances = {tokens: sequence_probability(rows, torch.tensor(tokens), sampling) for tokens in sequences}
    assert sum(chances.values()) == pytest.approx(1.0)
    assert all(chance == 0 for tokens, chance in chances.items() if {PAD_ID, BEGIN_ID} & set(tokens))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_chances_are_the_shares_of_what_is_drawn(sampling: Sampling) -> None:
    """All numbers that a step may draw by, evenly spread, give each token its chance."""
    grid = (torch.arange(20_000) + 0.5) / 20_000
    for step, row in enumerate(distributions(2)):
        logits = row.log().index_fill(0, torch.tensor([PAD_ID, BEGIN_ID]), -torch.inf)
        drawn = choose(logits.expand(len(grid), -1).clone(), sampling, step, grid)
        shares = torch.bincount(drawn, minlength=VOCABULARY) / len(grid)
        for token in range(VOCABULARY):
            steps = Sampling(temperature=sampling.temperature_at(step), top_k=sampling.top_k, top_p=sampling.top_p)
            chance = sequence_probability(row[None], torch.tensor([token]), steps)
            assert chance == pytest.approx(float(shares[token]), abs=2e-4)


def test_the_chance_of_a_suffix_is_that_of_its_tokens_in_turn() -> None:
    spec = text_input(train_tokenizer(["ab ab ba"], 300), 12)
    with CPU.seeded("model"):
        model = CausalLanguageModel(Size(vocabulary=300, tokens=14, width=16, layers=1, heads=2))
        for parameter in model.parameters():
            parameter.data.mul_(3)
    target = Target(
        model, access=Access.SCORES, adapter=TextAdapter(spec), input_spec=spec, classes=("text",), ledger=Ledger(),
        runtime=CPU, role="language-model",
    )  # fmt: skip
    known, whole = (TextAdapter(spec).encode([text])[0] for text in ("ab", "ab ba"))
    log_chance = 0.0
    for place, token in enumerate([*whole[len(known) :], END_ID], start=len(known)):
        with torch.no_grad():
            logits = model(torch.tensor([whole[:place]]))[0]
        logits[[PAD_ID, BEGIN_ID]] = -torch.inf
        log_chance += float(logits.log_softmax(dim=0)[token])
    assert math.log(suffix_probability(target, "ab", " ba", Sampling())) == pytest.approx(log_chance, abs=1e-3)
    assert target.ledger.total.queries == len(whole) - len(known) + 1
    assert suffix_probability(target, "ab", " ba", Sampling(top_k=1)) in (0.0, 1.0)


@given(st.floats(1e-6, 0.999), st.floats(0.01, 0.999))
def test_so_many_draws_are_enough_and_no_fewer(chance: float, certainty: float) -> None:
    n = draws_needed(chance, certainty)
    assert 1 - (1 - chance) ** n >= certainty - 1e-9
    assert n == 1 or 1 - (1 - chance) ** (n - 1) < certainty + 1e-9


def test_what_is_never_drawn_needs_draws_without_end() -> None:
    assert draws_needed(0.0, 0.5) == math.inf
    assert draws_needed(1.0, 0.5) == 1
    with pytest.raises(ConfigError):
        draws_needed(0.5, 1.0)
    with pytest.raises(ConfigError):
        sequence_probability(distributions(1), torch.tensor([2]), Sampling(temperature=0))
