"""Does the adversary's data hold the private data? Equal texts, and texts that share most of their words."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from typing import Any

from mi_text.cases import text_split
from micore.contracts import Dataset
from micore.errors import DataError

NEAR = 0.8
"""Jaccard similarity of word pairs from which on texts count as near."""
N_EXAMPLES = 10


def measure_overlap(dataset: Dataset) -> dict[str, Any]:
    """Count the public and holdout texts that equal a private one or share most of its word pairs.

    Returns, for ``public`` and ``holdout`` (where the data set has them): ``n``, ``equal`` (but for case and spaces),
    ``near`` and ``examples``, up to ten ``{index, private_index}``.
    """
    private = text_split(dataset, "private").texts
    rows, pairs, by_pair = _indexed(private)
    found: dict[str, Any] = {"near_from": NEAR, "private": {"n": len(private)}}
    for name in ("public", "holdout"):
        try:
            texts = text_split(dataset, name).texts
        except DataError:
            continue
        hits = [(index, _nearest(text, rows, pairs, by_pair)) for index, text in enumerate(texts)]
        equal = [(index, row) for index, (row, same) in hits if same]
        near = [(index, row) for index, (row, same) in hits if row is not None and not same]
        found[name] = {
            "n": len(texts), "equal": len(equal), "near": len(near),
            "examples": [{"index": index, "private_index": row} for index, row in (equal + near)[:N_EXAMPLES]],
        }  # fmt: skip
    return found


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _pairs(text: str) -> frozenset[tuple[str, str]]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return frozenset(pairwise(words)) or frozenset({(word, "") for word in words})


def _indexed(
    texts: tuple[str, ...],
) -> tuple[dict[str, int], list[frozenset[tuple[str, str]]], dict[tuple[str, str], list[int]]]:
    rows: dict[str, int] = {}
    by_pair: dict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = []
    for row, text in enumerate(texts):
        pairs.append(_pairs(text))
        if _plain(text) not in rows:
            rows[_plain(text)] = row
            for pair in pairs[-1]:
                by_pair[pair].append(row)
    return rows, pairs, by_pair


def _nearest(
    text: str, rows: dict[str, int], pairs: list[frozenset[tuple[str, str]]], by_pair: dict[tuple[str, str], list[int]]
) -> tuple[int | None, bool]:
    """Return the private text that a text equals or is near to, and whether it equals it."""
    if (row := rows.get(_plain(text))) is not None:
        return row, True
    own = _pairs(text)
    # to share four fifths of the pairs, a text must share one of any fifth and one more of its own: the rarest do
    rare = sorted(own, key=lambda pair: (len(by_pair.get(pair, ())), pair))[: len(own) // 5 + 1]
    candidates = {candidate for pair in rare for candidate in by_pair.get(pair, ())}
    for candidate in sorted(candidates):
        other = pairs[candidate]
        if len(own & other) >= NEAR * len(own | other):
            return candidate, False
    return None, False
