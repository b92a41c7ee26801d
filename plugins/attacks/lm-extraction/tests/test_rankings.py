"""Rankings, duplicates, prompts: against hand-made examples and plain formulas."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_lm_extraction.drawing import draw, prompts_of
from mi_attack_lm_extraction.duplicates import different, trigrams
from mi_attack_lm_extraction.rankings import LEAST, RANKINGS, rankings_of
from mi_text.sampling import Sampling
from micore.runtime import Random


class Scripted:
    """A language model of which the log-likelihoods of all texts are written down, ends included."""

    def __init__(self, known: dict[str, list[float]]) -> None:
        self.known = known
        self.asked: list[str] = []

    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        self.asked += texts
        return [torch.tensor(self.known[text]) for text in texts]

    def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
        return [f" {prompt.upper()}! " for prompt in prompts]


ROWS = {"Ab cd": [-1.0, -3.0, -0.5, -0.1, -9.0], "ab cd": [-2.0, -2.0, -2.0, -9.0]}
OTHER = {"Ab cd": [-4.0, -4.0, -7.0], "ab cd": [-1.0]}


def test_rankings_follow_their_formulas() -> None:
    values = rankings_of(["Ab cd"], Scripted(ROWS), [Scripted(OTHER), Scripted({"Ab cd": [-3.0, -7.0]})], window=2)
    own = (1.0 + 3.0 + 0.5 + 0.1) / 4  # without the end
    wanted = {
        "perplexity": -own, "zlib": len(zlib.compress(b"Ab cd")) / own, "lowercase": 2.0 / own, "window": -0.3,
        "small": 8.0 / 4.6, "medium": 3.0 / 4.6,
    }  # fmt: skip
    assert tuple(wanted) == RANKINGS
    assert values.tolist() == [pytest.approx(list(wanted.values()), rel=1e-5)]


def test_a_text_that_is_certain_has_finite_ratios() -> None:
    sure = Scripted({"aa": [0.0, 0.0]})
    values = rankings_of(["aa"], sure, [Scripted({"aa": [-1.0, -1.0]})], window=5)
    assert bool(torch.isfinite(values).all())
    assert values[0, 1] == pytest.approx(len(zlib.compress(b"aa")) / LEAST)
    assert values[0, 4] == pytest.approx(1.0 / LEAST)


def test_an_empty_text_is_ranked_by_its_end() -> None:
    assert rankings_of([""], Scripted({"": [-2.0]}), [], window=3)[0, 0] == -2.0


@given(st.lists(st.floats(-9, 0, width=32), min_size=2, max_size=12), st.integers(1, 14))
def test_the_window_is_the_best_of_all_windows(row: list[float], window: int) -> None:
    found = float(rankings_of(["x"], Scripted({"x": row}), [], window)[0, RANKINGS.index("window")])
    tokens = row[:-1]
    size = min(window, len(tokens))
    means = [math.fsum(tokens[start : start + size]) / size for start in range(len(tokens) - size + 1)]
    assert found == pytest.approx(max(means), abs=1e-5)


# duplicates -----------------------------------------------------------------------------------------------


def test_trigrams_split_at_spaces_and_punctuation() -> None:
    assert trigrams("a-b c,a b c!") == Counter({("a", "b", "c"): 2, ("b", "c", "a"): 1, ("c", "a", "b"): 1})
    assert not trigrams("two words")


def test_half_of_the_trigrams_make_a_duplicate() -> None:
    best = "one two three four five six"
    assert different([best, "one two three four x y"]) == [0]  # 2 of 4
    assert different([best, "one two three x y z"]) == [0, 1]  # 1 of 4
    assert different(["one two three x y z", best, "one two three"]) == [0, 1]  # its only one stands in both


def test_a_text_may_repeat_what_was_left_out() -> None:
    """Only texts that stay make others duplicates."""
    assert different(["a b c d", "b c d e f", "d e f g h"]) == [0, 1, 2]
    assert different(["a b c d", "b c d e", "c d e f"]) == [0, 2]


def test_repetition_counts_as_often_as_it_stands_there() -> None:
    assert different(["a a a b c", "a a a a a a a"]) == [0, 1]  # 1 of 5 equal trigrams is shared


words = st.lists(st.sampled_from("abc"), max_size=7).map(" ".join)


@given(st.lists(words, max_size=12))
def test_duplicates_are_those_of_all_pairs(texts: list[str]) -> None:
    kept: list[int] = []
    for place, text in enumerate(texts):
        own = trigrams(text)
        if any(
            text == texts[other] or (own and 2 * (own & trigrams(texts[other])).total() >= own.total())
            for other in kept
        ):
            continue
        kept.append(place)
    assert different(texts) == kept


# drawing --------------------------------------------------------------------------------------------------


def test_prompts_are_beginnings_of_public_texts() -> None:
    texts = ["one two three four five", "six seven"]
    prompts = prompts_of(texts, 200, (2, 4), Random(5))
    assert set(prompts) == {"one two", "one two three", "one two three four", "six seven"}


def test_drawn_texts_hold_their_prompts() -> None:
    assert draw(Scripted({}), ["ab", ""], Sampling(), Random(0)) == ["ab AB!", "!"]
