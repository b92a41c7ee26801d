"""The bundled pools of names, places and jobs (``data/PROVENANCE.md``): drawn at random, of no real person."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files

_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Pools:
    """Values to put texts together from, each pool sorted and without doubles."""

    first: tuple[str, ...]
    last: tuple[str, ...]
    cities: tuple[str, ...]
    companies: tuple[str, ...]
    jobs: tuple[str, ...]

    def without(self, words: Collection[str]) -> Pools:
        """Return the pools without the values in which one of these words, in lower case, stands.

        Companies are called after people and some first names are last names too, so that all pools are looked through.
        """
        unwanted = set(words)

        def kept(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(value for value in values if not words_of(value) & unwanted)

        return Pools(kept(self.first), kept(self.last), kept(self.cities), kept(self.companies), kept(self.jobs))

    def named(self, last: Collection[str]) -> Pools:
        """Return the pools with these last names only."""
        return replace(self, last=tuple(sorted(last)))


def words_of(text: str) -> set[str]:
    """Return the runs of letters of a text, in lower case."""
    return set(_WORD.findall(text.lower()))


@lru_cache(maxsize=1)
def load_pools() -> Pools:
    """Read the bundled pools."""
    content = gzip.decompress((files("mi_text") / "data" / "pools.json.gz").read_bytes())
    return Pools(**{name: tuple(values) for name, values in json.loads(content).items()})
