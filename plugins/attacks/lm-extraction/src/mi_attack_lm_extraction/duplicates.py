"""Leaving out texts that say again what a better ranked one says (Carlini et al., 2021, section 6.1)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_WORD = re.compile(r"\w+")

Trigram = tuple[str, str, str]


def trigrams(text: str) -> Counter[Trigram]:
    """Return how often each three words in a row stand in a text, split at spaces and punctuation."""
    words = _WORD.findall(text)
    return Counter(zip(words, words[1:], words[2:], strict=False))


def different(texts: Sequence[str]) -> list[int]:
    """Return the places of texts, best first, that are no duplicates of an earlier one that stays.

    A text is one when half of its trigrams or more, counted as often as they stand there, stand in the other too. Texts
    of fewer than three words have none: of them only equal ones are duplicates.
    """
    kept: list[int] = []
    seen: set[str] = set()
    places: dict[Trigram, list[tuple[int, int]]] = defaultdict(list)
    for place, text in enumerate(texts):
        own = trigrams(text)
        if text in seen or (own and _most_shared(own, places) * 2 >= own.total()):
            continue
        kept.append(place)
        seen.add(text)
        for trigram, count in own.items():
            places[trigram].append((place, count))
    return kept


def _most_shared(own: Counter[Trigram], places: dict[Trigram, list[tuple[int, int]]]) -> int:
    """Return how many trigrams a text has in common with the kept text that is most like it."""
    shared: Counter[int] = Counter()
    for trigram, count in own.items():
        for place, there in places.get(trigram, ()):
            shared[place] += min(count, there)
    return max(shared.values(), default=0)
