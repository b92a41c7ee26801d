"""Finding personal data in texts: by the shapes of numbers and addresses, and by lists of names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from mi_text.datasets.pools import load_pools

PATTERNS = {
    "email": re.compile(r"(?<![\w.+-])\w[\w.+-]*@[\w-]+(?:\.[\w-]+)+"),
    "phone": re.compile(r"(?<![\w-])(?:\+?\d{1,2}[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"),
    "ssn": re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
    "date": re.compile(r"\b[A-Z][a-z]+ \d{1,2}, \d{4}\b", re.IGNORECASE),
    "amount": re.compile(r"\$\d(?:[\d,]*\d)?"),
    "age": re.compile(r"(?<![\w-])\d{1,3}(?![\w-])"),
}
"""Shapes, by kind."""

TAGGED = ("name", "phone", "email", "ssn")
"""The kinds that say who somebody is: those that are looked for in texts of which nothing is known."""

_WORD = re.compile(r"[^\W\d_][\w'-]*")


@dataclass(frozen=True)
class Tagger:
    """Finds values of a kind. first, last: names, in lower case."""

    first: frozenset[str]
    last: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str] = ()) -> Tagger:
        """Know the bundled lists of names, as everybody does, and these full names besides."""
        pools, parts = load_pools(), [name.lower().split() for name in names]
        first = {part[0] for part in parts if part} | {name.lower() for name in pools.first}
        last = {part[-1] for part in parts if len(part) > 1} | {name.lower() for name in pools.last}
        return cls(frozenset(first), frozenset(last))

    def knows(self, kind: str) -> bool:
        """Tell whether values of this kind can be told from other words."""
        return kind in PATTERNS or kind in ("name", "first", "last")

    def find(self, text: str, kind: str) -> list[str]:
        """Return the different values of a kind that stand in a text, in their order; nothing of unknown kinds."""
        if kind in PATTERNS:
            found = PATTERNS[kind].findall(text)
        elif kind == "name":
            found = self._names(text)
        else:
            known = {"first": self.first, "last": self.last}.get(kind, frozenset())
            found = [word for word in _WORD.findall(text) if word.lower() in known]
        return list(dict.fromkeys(found))

    def _names(self, text: str) -> list[str]:
        """Return first and last names that stand side by side, one space between them."""
        words = list(_WORD.finditer(text))
        return [
            text[one.start() : two.end()]
            for one, two in pairwise(words)
            if text[one.end() : two.start()] == " " and one[0].lower() in self.first and two[0].lower() in self.last
        ]
