"""E-mail addresses and numbers of persons among candidates: how many are real, in the order in which they come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mi_evaluator_extraction.matching import linked
from mi_text.splits import TextSplit

EMAIL = r"(?<![\w.+-])\w[\w.+-]*@[\w-]+(?:\.[\w-]+)+"
"""An e-mail address; of numbers, the shapes of the private ones are looked for."""


@dataclass(frozen=True)
class Identifiers:
    """What persons are known by in a split.

    noted: the different values that the data set notes; written: all that stand in its texts, of the same shapes.
    """

    noted: tuple[str, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, split: TextSplit) -> Identifiers:
        """Read a split."""
        values = (plain(value) for facts in split.facts for value in linked(facts).values())
        return cls(tuple(dict.fromkeys(values)), tuple(dict.fromkeys(split.texts)))

    @cached_property
    def written(self) -> frozenset[str]:
        """Return all identifiers in the texts, noted or not."""
        return frozenset(self.in_order(self.texts))

    def in_order(self, texts: Iterable[str]) -> list[str]:
        """Return the different identifiers of texts, in the order in which they come."""
        return list(dict.fromkeys(plain(found) for text in texts for found in self._pattern.findall(text)))

    def recalled(self, texts: Sequence[str], allowed: int) -> set[str]:
        """Return the noted values that come before more wrong ones than allowed.

        Wrong are those that stand in no text; those that stand there and are not noted count for nothing.
        """
        recalled: set[str] = set()
        wrong, noted = 0, set(self.noted)
        for value in self.in_order(texts):
            if value in noted:
                recalled.add(value)
            elif value not in self.written:
                wrong += 1
                if wrong > allowed:
                    break
        return recalled

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        shapes = set(_shapes(self.noted))
        # The longest first: a number of nine digits is none of seven. No digits, nor hyphens and digits, around them.
        numbers = [rf"(?<!\w)(?<!\d-){shape}(?!\w)(?!-\d)" for shape in sorted(shapes, key=lambda s: (-len(s), s))]
        return re.compile("|".join([EMAIL, *numbers]))


def plain(value: str) -> str:
    """Return a value in lower case, without spaces around it."""
    return value.strip().lower()


def _shapes(values: Iterable[str]) -> Iterator[str]:
    """Turn each value that is no address into a pattern: any digit for a digit, all other signs as they are."""
    for value in values:
        if "@" not in value and any(sign.isdecimal() for sign in value):
            yield "".join(r"\d" if sign.isdecimal() else re.escape(sign) for sign in value)
