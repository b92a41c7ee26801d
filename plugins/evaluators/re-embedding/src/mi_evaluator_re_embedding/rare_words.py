"""Texts as vectors of words and pairs of neighbouring words, the rarer the longer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mi_text.measures import words


class RareWords:
    """TF-IDF of words and pairs of neighbouring words: counts times ``log((1 + N) / (1 + n)) + 1``.

    N: texts that rarity was counted in; n: those among them with the word.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._n_texts = len(texts)
        self._texts_with = Counter(term for text in texts for term in set(terms(text)))

    def cosines(self, texts: Sequence[str], others: Sequence[str]) -> Tensor:
        """Compare texts pair by pair: (N,) in [0, 1], 0 where one of them has no word."""
        pairs = zip(map(self._vector, texts), map(self._vector, others), strict=True)
        return torch.tensor([_cosine(*pair) for pair in pairs], dtype=torch.float64)

    def _vector(self, text: str) -> dict[str, float]:
        return {term: count * self._rarity(term) for term, count in Counter(terms(text)).items()}

    def _rarity(self, term: str) -> float:
        return math.log((1 + self._n_texts) / (1 + self._texts_with[term])) + 1


def terms(text: str) -> list[str]:
    """Return the words of a text and its pairs of neighbouring words."""
    found = words(text)
    return found + [f"{one} {two}" for one, two in pairwise(found)]


def _cosine(one: Mapping[str, float], two: Mapping[str, float]) -> float:
    lengths = math.hypot(*one.values()) * math.hypot(*two.values())
    shared = sum(value * two[term] for term, value in one.items() if term in two)
    return min(1.0, shared / lengths) if lengths else 0.0
