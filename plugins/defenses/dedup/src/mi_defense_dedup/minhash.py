"""Which texts are nearly equal: Jaccard similarity of their word n-grams, found by MinHash.

Broder: "On the resemblance and containment of documents", SEQUENCES 1997. A signature holds for each of some hash
functions the smallest value over the n-grams; two texts agree in one of them with a probability equal to their
similarity. Bands of the signature are looked up in tables, and whoever meets there is compared exactly, so that no text
is taken for near that is not; one that is near is missed with a small probability, see `band_width`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

HASHES = 128
MISSED = 1e-3
"""Probability, at most, that a pair whose similarity is just the threshold meets in no table."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""Of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""

_WORD = re.compile(r"\w+")


def shingles(text: str, n: int) -> frozenset[str]:
    """Return the different runs of n words, in lower case; of a text with fewer words, the text."""
    words = _WORD.findall(text.lower()) or text.split()
    return frozenset(" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of what is in either that is in both, from 0 to 1; neither is empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def groups(sets: Sequence[frozenset[str]], threshold: float) -> list[int]:
    """Return for each set the first of its group; who is near to a member of a group belongs to it.

    threshold: Jaccard similarity, above 0 and at most 1, from which on two sets are near.
    """
    first = list(range(len(sets)))
    compared: set[tuple[int, int]] = set()
    for pair in _meetings(sets, threshold):
        one, other = (_root(first, row) for row in pair)
        if one == other or pair in compared:
            continue
        compared.add(pair)
        if jaccard(sets[pair[0]], sets[pair[1]]) >= threshold:
            first[max(one, other)] = min(one, other)
    return [_root(first, row) for row in range(len(sets))]


def band_width(threshold: float) -> int:
    """Return how many hashes of a signature make a band: as many as miss a pair at the threshold seldom enough.

    Bands of r hashes miss a pair of similarity s with probability ``(1 - s^r)^(HASHES / r)``, rounded down.
    """
    widths = [r for r in range(1, HASHES + 1) if (1 - threshold**r) ** (HASHES // r) <= MISSED]
    return max(widths, default=1)


def signature(items: frozenset[str]) -> NDArray[np.uint64]:
    """Return the smallest hashes of a set, uint64 (HASHES,); the same on every machine."""
    digests = b"".join(blake2b(item.encode(errors="surrogatepass"), digest_size=8).digest() for item in items)
    codes = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    functions = np.arange(1, HASHES + 1, dtype=np.uint64) * GOLDEN
    smallest: NDArray[np.uint64] = _mixed(codes[:, None] + functions[None]).min(axis=0)
    return smallest


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * FIRST_FACTOR
    numbers = (numbers ^ (numbers >> np.uint64(27))) * SECOND_FACTOR
    return numbers ^ (numbers >> np.uint64(31))


def _meetings(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that share a band, in a fixed order, perhaps more than once."""
    width = band_width(threshold)
    signatures = [signature(items) for items in sets]
    for start in range(0, HASHES - width + 1, width):
        tables: dict[bytes, list[int]] = defaultdict(list)
        for row, found in enumerate(signatures):
            tables[found[start : start + width].tobytes()].append(row)
        for rows in tables.values():
            yield from combinations(rows, 2)


def _root(first: list[int], row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]
        row = first[row]
    return row
