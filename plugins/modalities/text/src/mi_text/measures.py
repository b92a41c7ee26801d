"""How like is what was recovered to the true text?: functions of strings.

A word is a run of letters, a run of digits, or any other sign by itself, in lower case: every sign but spaces belongs
to one. Tokens of models play no part: figures of models with different tokenizers can be compared.

Sources: precision, recall and F1 over words counted as often as they stand there, as in Rajpurkar et al., SQuAD (EMNLP
2016); ROUGE of Lin (2004), F with equal weights; the longest common subsequence by bits as in Hyyro (2004).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two texts share, each in [0, 1]: precision of the predicted, recall of the true words, and F1."""

    precision: float
    recall: float
    f1: float


def best(samples: Sequence[str]) -> str:
    """Return what an attack deems best; an empty text, which is like nothing, where it gave back none."""
    return samples[0] if samples else ""


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, other signs one by one among them."""
    return _WORD.findall(_plain(text))


def token_overlap(predicted: str, true: str) -> Overlap:
    """Compare the words of two texts, each counted as often as it stands there; 0 where they share none."""
    return _overlap(Counter(words(predicted)), Counter(words(true)))


def exact_match(predicted: str, true: str, *, punctuation: bool = True) -> bool:
    """Tell whether two texts are equal; case and the number of spaces aside, and all but letters and digits if told."""
    if punctuation:
        return _plain(predicted).split() == _plain(true).split()
    return _spoken(predicted) == _spoken(true)


def rouge_1(predicted: str, true: str) -> float:
    """Return ROUGE-1 F in [0, 1]: the overlap of words, punctuation left out."""
    return _overlap(Counter(_spoken(predicted)), Counter(_spoken(true))).f1


def rouge_l(predicted: str, true: str) -> float:
    """Return ROUGE-L F in [0, 1]: the longest common subsequence of words, punctuation left out."""
    one, two = _spoken(predicted), _spoken(true)
    return _ratios(common_subsequence(one, two), len(one), len(two)).f1


def common_subsequence(one: Sequence[str], two: Sequence[str]) -> int:
    """Return the length of the longest sequence that stands in both in this order, not always side by side."""
    places: dict[str, int] = {}
    for place, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << place
    everywhere = (1 << len(one)) - 1
    free = everywhere  # bits of `one` at which the length of the common subsequence does not grow
    for item in two:
        matched = free & places.get(item, 0)
        free = (free + matched | free - matched) & everywhere
    return len(one) - free.bit_count()


def edit_similarity(predicted: str, true: str) -> float:
    """Return 1 - Levenshtein distance / length of the longer text, in [0, 1]; two empty texts are equal.

    Signs are compared as they are. The time grows with the product of the lengths.
    """
    longer = max(len(predicted), len(true))
    return 1 - edit_distance(predicted, true) / longer if longer else 1.0


def edit_distance(one: str, two: str) -> int:
    """Return how many signs must be put in, taken out or changed to turn one text into the other."""
    distances = list(range(len(two) + 1))
    for row, sign in enumerate(one, start=1):
        diagonal, distances[0] = distances[0], row
        for column, other in enumerate(two, start=1):
            changed = diagonal + (sign != other)
            diagonal = distances[column]
            distances[column] = min(changed, diagonal + 1, distances[column - 1] + 1)
    return distances[-1]


def holds(text: str, value: str) -> bool:
    """Tell whether a value stands in a text, case and spaces aside.

    Decoders may split it (``555 - 12``). It must not go on to either side: 7 does not stand in 47, nor Ann in Hannah.
    """
    signs = _squeezed(value)
    if not signs or signs not in _squeezed(text):  # the quick test for most
        return False
    inner = r"\s*".join(map(re.escape, signs))
    return re.search(f"(?<!{_kin(signs[0])}){inner}(?!{_kin(signs[-1])})", _plain(text)) is not None


def _kin(sign: str) -> str:
    """Return a pattern of what a word that has this sign at its end would go on with."""
    if sign.isdecimal():
        return r"\d"
    return r"[^\W\d_]" if sign.isalnum() else r"[^\s\S]"  # the latter matches nothing


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _squeezed(text: str) -> str:
    return "".join(_plain(text).split())


def _spoken(text: str) -> list[str]:
    """Return the words without punctuation."""
    return [word for word in words(text) if word[0].isalnum()]


def _overlap(predicted: Counter[str], true: Counter[str]) -> Overlap:
    return _ratios((predicted & true).total(), predicted.total(), true.total())


def _ratios(shared: int, predicted: int, true: int) -> Overlap:
    """Return precision (of what was predicted), recall (of what is true) and F1."""
    if not shared:
        return Overlap(0.0, 0.0, 0.0)
    return Overlap(shared / predicted, shared / true, 2 * shared / (predicted + true))
