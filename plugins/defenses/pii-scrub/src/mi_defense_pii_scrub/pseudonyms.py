"""Pseudonyms: values of the same form as those they stand for.

Names are made-up words, addresses and social security numbers are of kinds that nobody is given; other numbers are
drawn at random, so that one may belong to somebody.

The same value gets the same pseudonym everywhere in a corpus. They are given out in the order in which values first
appear: a hash of the value would be undone by whoever hashes a list of names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

from mi_defense_pii_scrub.finding import NAME
from micore.runtime import derive_seed

_MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DATE_PART = re.compile(r"\d+|[A-Za-z]{3,}")
TRIES = 1000


class Pseudonyms:
    """Gives out pseudonyms for values. taken: words and values, in lower case, that none may equal."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._given: dict[tuple[str, str], str] = {}

    def of(self, kind: str, value: str) -> str:
        """Return the pseudonym of a value, in lower case if the value is."""
        key = (kind, value.lower())
        if key not in self._given:
            self._given[key] = self._new(kind, value, random.Random(derive_seed("pii-scrub", kind, len(self._given))))
        found = self._given[key]
        return found.lower() if value == value.lower() else found

    def _new(self, kind: str, value: str, rng: random.Random) -> str:
        """Draw until it is new; short forms have few values, of which one may then be given twice."""
        made = ""
        for _ in range(TRIES):
            made = _make(kind, value, rng)
            if made.lower() not in self._taken:
                break
        self._taken.add(made.lower())
        return made


def _make(kind: str, value: str, rng: random.Random) -> str:
    if kind == NAME:
        return _name(rng)
    if kind == "email":
        return f"{_name(rng).lower()}{rng.randrange(10, 100)}@example.com"
    if kind == "date":
        return _DATE_PART.sub(lambda part: _date_part(part[0], rng), value)
    made = re.sub(r"\d", lambda _: str(rng.randrange(10)), value)
    if kind == "ssn":
        return f"9{made[1:]}"  # no such number begins with 9
    return _with_check_digit(made) if kind == "card" else made


def _name(rng: random.Random) -> str:
    """Return a word of open syllables with a capital, such as Belora."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((3, 4)))).capitalize()


def _date_part(part: str, rng: random.Random) -> str:
    """Return another year, month or day; numbers of one or two digits may be either of these."""
    if part.isdecimal():
        if len(part) == 4:
            return str(rng.randrange(1940, 2025))
        return f"{rng.randrange(1, 10)}" if len(part) == 1 else f"{rng.randrange(10, 13)}"
    return rng.choice(_MONTH_NAMES) if len(part) > 2 else part


def _with_check_digit(text: str) -> str:
    """Return a card number whose last digit is right (ISO/IEC 7812-1)."""
    digits = [int(item) for item in text if item.isdecimal()][::-1]
    total = sum(digits[2::2]) + sum(sum(divmod(2 * item, 10)) for item in digits[1::2])
    place = max(index for index, item in enumerate(text) if item.isdecimal())
    return f"{text[:place]}{-total % 10}{text[place + 1 :]}"
