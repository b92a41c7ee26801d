"""How often a text stands in a split: language models remember best what they have read often."""

from __future__ import annotations

from collections import Counter

from mi_text.splits import TextSplit


def repetitions(split: TextSplit) -> dict[str, int]:
    """Return how often each different text stands in a split, in the order in which they first do."""
    return dict(Counter(split.texts))
