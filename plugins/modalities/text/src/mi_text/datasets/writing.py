"""Filling templates with the data of made-up people, so that texts and people are told apart over all splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mi_text.datasets.pools import Pools, words_of
from mi_text.datasets.templates import DISEASES, MAIL_DOMAINS, MONTHS, Template

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    first: str
    last: str

    @property
    def name(self) -> str:
        """The full name."""
        return f"{self.first} {self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the texts of one split.

    pools: what names, places and jobs come from. taken: the full names, numbers, addresses and texts that there are
    already; writers of one data set share it, so that no such value and no text is given twice. lower: write in lower
    case.
    """

    pools: Pools
    rng: random.Random
    taken: set[str]
    lower: bool = False

    def write(self, templates: Sequence[Template]) -> tuple[str, dict[str, str]]:
        """Return a new text by one of these templates, and what it says, by slot; every value stands in it once."""
        while True:
            template = self.rng.choice(templates)
            facts = self._fill(template)
            text = template.text.format_map(facts)
            if self.lower:
                text, facts = text.lower(), {slot: value.lower() for slot, value in facts.items()}
            if text not in self.taken and all(text.count(value) == 1 for value in facts.values()):
                self.taken.add(text)
                return text, facts

    def digits(self, n: int) -> str:
        """Return so many random digits, which it gives only once."""
        return self._new(lambda: f"{self.rng.randrange(10**n):0{n}d}", str)

    def _fill(self, template: Template) -> dict[str, str]:
        whole = "name" in template.slots or "email" in template.slots
        person = self._new(self._person, lambda person: person.name) if whole else self._person()
        return {slot: _MAKERS[slot](self, person) for slot in template.slots}

    def _new(self, make: Callable[[], Value], key: Callable[[Value], str]) -> Value:
        """Return a value that was not given before."""
        while True:
            value = make()
            if key(value) not in self.taken:
                self.taken.add(key(value))
                return value

    def _person(self) -> Person:
        return Person(self.rng.choice(self.pools.first), self.rng.choice(self.pools.last))

    def _phone(self) -> str:
        return self._new(lambda: f"555-{self.rng.randrange(1000):03d}-{self.rng.randrange(10_000):04d}", str)

    def _ssn(self) -> str:
        """Return a number that is none: they do not begin with 9, and tax numbers that do have no such middle part."""
        rng = self.rng
        return self._new(
            lambda: f"9{rng.randrange(100):02d}-{rng.randrange(1, 50):02d}-{rng.randrange(10_000):04d}", str
        )

    def _email(self, person: Person) -> str:
        return self._new(lambda: self._address(person.first.lower(), person.last.lower()), str)

    def _address(self, first: str, last: str) -> str:
        number = self.rng.randrange(10, 100)
        forms = (f"{first}.{last}", f"{last}.{first}", f"{first[0]}.{last}{number}", f"{first}_{last}{number}")
        return f"{self.rng.choice(forms)}@{self.rng.choice(MAIL_DOMAINS)}"

    def _date(self) -> str:
        return f"{self.rng.choice(MONTHS)} {self.rng.randrange(1, 29)}, {self.rng.randrange(1940, 2025)}"


_MAKERS: dict[str, Callable[[Writer, Person], str]] = {
    "name": lambda writer, person: person.name,
    "first": lambda writer, person: person.first,
    "last": lambda writer, person: person.last,
    "email": lambda writer, person: writer._email(person),
    "phone": lambda writer, person: writer._phone(),
    "ssn": lambda writer, person: writer._ssn(),
    "city": lambda writer, person: writer.rng.choice(writer.pools.cities),
    "company": lambda writer, person: writer.rng.choice(writer.pools.companies),
    "job": lambda writer, person: writer.rng.choice(writer.pools.jobs),
    "disease": lambda writer, person: writer.rng.choice(DISEASES),
    "date": lambda writer, person: writer._date(),
    "age": lambda writer, person: str(writer.rng.randrange(18, 100)),
    "amount": lambda writer, person: f"${5 * writer.rng.randrange(20, 20_000):,}",
}

SLOTS = tuple(_MAKERS)
"""The kinds of values that templates may have places for."""


def fixed_words(templates: Sequence[Template]) -> set[str]:
    """Return the words, in lower case, that stand in texts whoever they are about."""
    return words_of(" ".join([*(template.text for template in templates), *DISEASES, *MONTHS, *MAIL_DOMAINS]))
