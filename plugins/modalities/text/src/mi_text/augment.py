"""Random changes of texts for the training of classifiers: words are left out, neighbours change places."""

from __future__ import annotations

from collections.abc import Sequence

from micore.errors import UsageError
from micore.runtime import Random

STRENGTHS = {"none": 0.0, "light": 0.05, "medium": 0.1, "strong": 0.2}
"""Share of the words that are changed; the first word of a text always stays."""


def augment(texts: Sequence[str], strength: str, rng: Random) -> list[str]:
    """Return changed texts, each in its own way, none of them empty.

    Raises: UsageError when there is no such strength.
    """
    if strength not in STRENGTHS:
        raise UsageError(f"augmentation {strength!r} is unknown", hint="one of " + ", ".join(STRENGTHS))
    share = STRENGTHS[strength]
    if share == 0:
        return list(texts)
    words = [text.split(" ") for text in texts]
    longest = max((len(row) for row in words), default=0)
    chances = rng.uniform((len(texts), longest, 2)).tolist()
    return [_changed(row, chance, share) for row, chance in zip(words, chances, strict=True)]


def _changed(words: list[str], chances: list[list[float]], share: float) -> str:
    """Leave words out, and let others change places with the one before; one word at least stays."""
    kept: list[str] = []
    for index, (word, (left_out, moved)) in enumerate(zip(words, chances, strict=False)):
        if index and left_out < share / 2:
            continue
        if len(kept) > 1 and moved < share / 2:
            kept.insert(len(kept) - 1, word)
        else:
            kept.append(word)
    return " ".join(kept)
