"""The words that can be recovered, texts as sets of them, and how well predicted sets fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_text.measures import words


@dataclass(frozen=True, slots=True, kw_only=True)
class WordSets:
    """Texts as sets of words of a vocabulary.

    members: int64 (N, L), the places of each text's words in the vocabulary, filled up with ``size``.
    sizes: int64 (N,), how many different words each text has, those outside of the vocabulary among them.
    """

    members: Tensor
    sizes: Tensor
    size: int

    def known(self) -> list[int]:
        """Return how many words of the vocabulary each text has."""
        counts: list[int] = (self.members < self.size).sum(dim=1).tolist()
        return counts

    def hot(self, rows: Tensor) -> Tensor:
        """Return which words stand in some of the texts, bool (B, size)."""
        found = torch.zeros(len(rows), self.size + 1, dtype=torch.bool)
        return found.scatter_(1, self.members[rows], True)[:, :-1]


def common_words(texts: Sequence[str], limit: int) -> list[str]:
    """Return the words that stand in most texts, at most ``limit``, the most frequent first.

    Words are those of `mi_text.measures.words`: in lower case, signs of punctuation among them.
    """
    counts = Counter(word for text in texts for word in set(words(text)))
    return sorted(counts, key=lambda word: (-counts[word], word))[:limit]


def word_sets(texts: Sequence[str], vocabulary: Sequence[str]) -> WordSets:
    """Return texts as sets of words."""
    place = {word: index for index, word in enumerate(vocabulary)}
    sets = [set(words(text)) for text in texts]
    rows = [sorted(place[word] for word in found if word in place) for found in sets]
    width = max(1, *map(len, rows))
    padded = [[*row, *[len(vocabulary)] * (width - len(row))] for row in rows]
    return WordSets(
        members=torch.tensor(padded, dtype=torch.int64).reshape(len(rows), width),
        sizes=torch.tensor([len(found) for found in sets]),
        size=len(vocabulary),
    )


def f1(predicted: Tensor, hot: Tensor, sizes: Tensor) -> Tensor:
    """Return F1 of predicted sets, bool (N, size), against true ones of which ``sizes`` (N,) words are all, (N,)."""
    shared = (predicted & hot).sum(dim=1)
    return 2 * shared / (predicted.sum(dim=1) + sizes).clamp(min=1)


def best_threshold(probabilities: Tensor, hot: Tensor, sizes: Tensor, grid: Tensor) -> float:
    """Return the threshold of a grid (G,) at which predicted sets have the highest mean F1; the lowest of equals.

    probabilities: of each word, (N, size); hot, sizes: the true sets, as in `f1`.
    """
    reached = torch.stack([f1(probabilities > threshold, hot, sizes).mean() for threshold in grid])
    return float(grid[reached.argmax()])


def sentence(confidences: Tensor, vocabulary: Sequence[str]) -> tuple[str, float]:
    """Return the predicted words joined by spaces, the surest first, and their mean log-confidence.

    confidences: log-confidence of each word of the vocabulary, (size,); -inf: not predicted.
    """
    order = confidences.argsort(descending=True, stable=True)
    chosen = order[confidences[order] > -torch.inf]
    return " ".join(vocabulary[index] for index in chosen.tolist()), float(confidences[chosen].mean())
