"""The likeliest secrets of a format, found without trying all (Carlini et al., 2019, section 7: a shortest path).

Beginnings of secrets are nodes; the cost of one is minus the log-likelihood of the text up to there, which only grows
as a secret goes on. So the cheapest whole text that leaves the queue is the likeliest of all, provided that a
beginning's tokens begin the tokens of the whole text: with tokenizers that take digits one by one they do.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mi_text.evidence import Hole
from mi_text.reference_model import LanguageModel
from micore.errors import UsageError


@dataclass(frozen=True)
class Format:
    """What may stand in each place of a secret: ``alphabets``, one text of signs for each."""

    alphabets: tuple[str, ...]

    @classmethod
    def of(cls, candidates: Sequence[str]) -> Format:
        """Read a format off secrets that have it.

        Raises: UsageError when they are not of one length.
        """
        if len({len(candidate) for candidate in candidates}) != 1:
            raise UsageError("secrets of different lengths have no format to search in", hint="leave search=0")
        return cls(tuple("".join(sorted(set(signs))) for signs in zip(*candidates, strict=True)))

    def children(self, beginning: str) -> Iterator[str]:
        """Go on with each sign that may follow, and with all that must follow that."""
        for sign in self.alphabets[len(beginning)]:
            longer = beginning + sign
            while not self.is_whole(longer) and len(self.alphabets[len(longer)]) == 1:
                longer += self.alphabets[len(longer)]
            yield longer

    def is_whole(self, beginning: str) -> bool:
        """Tell whether nothing is missing."""
        return len(beginning) == len(self.alphabets)


def likeliest(model: LanguageModel, hole: Hole, n: int, limit: int, width: int) -> list[str]:
    """Return the n likeliest secrets that fill a hole, best first, or those found with so many queries.

    width: beginnings that go on at once; it changes the cost and not the result.
    """
    if n == 0:
        return []
    form = Format.of(hole.candidates)
    queue: list[tuple[float, str]] = [(0.0, "")]
    found: list[str] = []
    asked = 0
    while queue and len(found) < n:
        if form.is_whole(queue[0][1]):
            found.append(heapq.heappop(queue)[1])
            continue
        longer = [child for beginning in _cheapest(queue, form, width) for child in form.children(beginning)]
        if (asked := asked + len(longer)) > limit:
            break
        for cost, beginning in zip(_costs(model, hole, form, longer), longer, strict=True):
            heapq.heappush(queue, (cost, beginning))
    return found


def _cheapest(queue: list[tuple[float, str]], form: Format, width: int) -> list[str]:
    """Take beginnings from the queue, the cheapest first, up to the first whole secret."""
    taken: list[str] = []
    while queue and len(taken) < width and not form.is_whole(queue[0][1]):
        taken.append(heapq.heappop(queue)[1])
    return taken


def _costs(model: LanguageModel, hole: Hole, form: Format, beginnings: Sequence[str]) -> list[float]:
    """Return minus the log-likelihood of texts up to a beginning's end, or of the whole text with its end, in nats."""
    whole = [form.is_whole(beginning) for beginning in beginnings]
    texts = [
        hole.filled(beginning) if done else hole.before + beginning
        for beginning, done in zip(beginnings, whole, strict=True)
    ]
    rows = model.likelihoods(texts)
    return [-float((row if done else row[:-1]).double().sum()) for row, done in zip(rows, whole, strict=True)]
