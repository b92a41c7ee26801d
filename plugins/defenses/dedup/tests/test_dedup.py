"""Near texts against a comparison of all pairs, MinHash against its probability, and what a model then remembers."""

from __future__ import annotations

import random
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_defense_dedup.defense import Deduplication
from mi_defense_dedup.minhash import HASHES, MISSED, band_width, groups, jaccard, shingles, signature
from mi_text.datasets.customers import open_customers
from mi_text.modality import TextModality
from mi_text.splits import TextSplit
from mi_text.toy import toys
from micore.answers import task_losses
from micore.configs import make_config
from micore.errors import ConfigError
from micore.kit.training import PartOf
from micore.runtime import Runtime
from micore.testing.lab import train_setting


def dedup(**options: Any) -> Deduplication:
    return Deduplication(make_config(Deduplication.Config, options, "dedup"))


def kept(texts: list[str], **options: Any) -> list[str]:
    return list(dedup(**options).adapt_data(TextSplit(tuple(texts))).texts)


def changed(rng: random.Random, words: list[str], n: int) -> str:
    copy = list(words)
    for place in rng.sample(range(len(copy)), n):
        copy[place] = f"new{rng.randrange(10**6)}"
    return " ".join(copy)


def corpus(seed: int) -> list[str]:
    """Return twelve texts of forty words, each with copies in which up to three words are others, shuffled."""
    rng = random.Random(seed)
    texts = []
    for _ in range(12):
        words = [f"w{rng.randrange(500)}" for _ in range(40)]
        texts += [changed(rng, words, n) for n in (0, 0, 1, 2, 3)]
    rng.shuffle(texts)
    return texts


# near texts -----------------------------------------------------------------------------------------------


def first_of_group(sets: list[frozenset[str]], threshold: float) -> list[int]:
    """Return the first of each row's connected component, by comparing all pairs until nothing changes."""
    found = list(range(len(sets)))
    while True:
        before = list(found)
        for one, other in combinations(range(len(sets)), 2):
            if len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= threshold:
                found[one] = found[other] = min(found[one], found[other])
        if found == before:
            return found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_those_of_all_pairs(threshold: float, seed: int) -> None:
    sets = [shingles(text, 5) for text in corpus(seed)]
    expected = first_of_group(sets, threshold)
    assert groups(sets, threshold) == expected
    assert len(set(expected)) < len(sets)


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 6))
def test_jaccard_is_one_for_equal_and_symmetric(one: str, other: str, n: int) -> None:
    first, second = shingles(one + "a", n), shingles(other + "a", n)
    assert jaccard(first, first) == 1
    assert jaccard(first, second) == jaccard(second, first) == len(first & second) / len(first | second)


def test_shingles_are_runs_of_words() -> None:
    assert shingles("One, two three; FOUR five six", 5) == {"one two three four five", "two three four five six"}
    assert shingles("One two!", 5) == {"one two"}
    assert shingles("?! ...", 5) == {"?! ..."}


def test_two_signatures_agree_as_often_as_sets_are_alike() -> None:
    rng, agreed, expected = random.Random(0), [], []
    for share in (0.2, 0.5, 0.8, 0.95):
        for trial in range(20):
            common = {f"c{share}-{trial}-{item}" for item in range(round(200 * share))}
            pair = [
                frozenset(common | {f"{side}{rng.random()}" for _ in range((200 - len(common)) // 2)}) for side in "ab"
            ]
            agreed.append(float(np.mean(signature(pair[0]) == signature(pair[1]))))
            expected.append(jaccard(*pair))
    differences = np.array(agreed) - np.array(expected)
    assert np.abs(differences).max() < 4.5 * 0.5 / np.sqrt(HASHES)
    assert abs(differences.mean()) < 0.02


def mixed(number: int) -> int:
    """Return what splitmix64 makes of a number, in Python's whole numbers."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
    return number ^ (number >> 31)


def test_signatures_are_the_smallest_hashes_of_each_function() -> None:
    items = ("a b", "c", "\u00e9")
    codes = [int.from_bytes(blake2b(item.encode(), digest_size=8).digest(), "little") for item in items]
    expected = [min(mixed((code + k * 0x9E3779B97F4A7C15) % 2**64) for code in codes) for k in range(1, HASHES + 1)]
    assert signature(frozenset(items)).tolist() == expected


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95])
def test_pairs_at_the_threshold_are_seldom_missed(threshold: float) -> None:
    width = band_width(threshold)
    assert (1 - threshold**width) ** (HASHES // width) <= MISSED
    wider = width + 1
    assert (1 - threshold**wider) ** (HASHES // wider) > MISSED


# the training data ----------------------------------------------------------------------------------------


def test_equal_texts_are_kept_once_but_for_case_and_spaces() -> None:
    assert kept(["b  x", "a", "B x", "a", "c"], threshold=None) == ["b  x", "a", "c"]


def test_near_texts_are_kept_once_and_templates_are_not_near() -> None:
    base = "the quick brown fox jumps over the lazy dog and runs into the deep dark forest far away from here today"
    near = base.replace("today", "tonight")
    codes = [f"The secret vault code is {code}." for code in (123456, 654321)]
    assert kept([base, *codes, near]) == [base, *codes]
    assert kept([base, *codes, near], threshold=None) == [base, *codes, near]
    assert kept([base, *codes, near], threshold=0.3) == [base, codes[0]]


def test_a_chain_of_near_texts_is_one_group() -> None:
    words = [f"w{place}" for place in range(60)]
    chain = [" ".join(words[start : start + 40]) for start in (0, 3, 6, 9)]
    assert jaccard(shingles(chain[0], 5), shingles(chain[3], 5)) < 0.8
    assert kept(chain) == chain[:1]


def test_labels_and_facts_go_with_their_texts() -> None:
    texts = ("a b", "c", "a b", "d")
    split = TextSplit(texts, torch.tensor([0, 1, 1, 2]), ({"x": "a"}, {}, {"x": "b"}, {"y": "d"}))
    defense = dedup()
    found = defense.adapt_data(split)
    assert (found.texts, found.facts) == (("a b", "c", "d"), ({"x": "a"}, {}, {"y": "d"}))
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2]
    assert defense.facts() == {"texts": 4, "kept": 3, "equal_removed": 1, "near_removed": 0}
    part = dedup().adapt_data(PartOf(split, torch.tensor([2, 3, 0])))
    assert (part.texts, part.facts) == (("a b", "d"), ({"x": "b"}, {"y": "d"}))


def test_repeats_of_the_bundled_corpus_are_removed() -> None:
    split = open_customers(None, background=200, per_level=4, canaries=2, public=50).split("private")
    defense = dedup()
    found = defense.adapt_data(split)
    assert sorted(found.texts) == sorted(set(split.texts))  # nothing there is near without being equal
    assert defense.facts()["equal_removed"] == len(split) - len(set(split.texts)) > 400
    assert defense.adapt_data(split).fingerprint == found.fingerprint


def test_an_untrained_defense_has_nothing_to_tell() -> None:
    assert dedup().facts() == {}


def test_secrets_lose_what_their_repeats_gave_them() -> None:
    """Three texts stand sixteen times each: how much likelier the model finds them than texts that stand once."""
    toy = next(toy for toy in toys() if toy.role == "language-model")
    modality, leads, runtime = TextModality(), [], Runtime(device=torch.device("cpu"))
    for defenses in ((), (dedup(),)):
        trained, _ = train_setting(toy, modality, runtime, "classifier", defenses, epochs=8, batch_size=8)
        assert len(trained.split) == (19 if defenses else 64)
        texts = [*toy.dataset.split("private").take([0, 16, 32]), *toy.dataset.split("private").take(range(48, 64))]
        inputs = modality.adapter(toy.dataset.input)(texts)
        with torch.no_grad():
            losses = task_losses(trained.module.eval(), inputs, torch.zeros(len(texts), dtype=torch.int64))
        leads.append(float(losses[3:].mean() - losses[:3].mean()))
    assert leads[0] > 0.3
    assert leads[1] < 0.2 * leads[0]


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"words": 0}])
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dedup(**options)
