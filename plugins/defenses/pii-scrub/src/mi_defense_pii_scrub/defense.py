"""Scrubbing of personal data from training texts.

Lukas, Salem, Sim, Tople, Wutschitz, Zanella-Beguelin: "Analyzing Leakage of Personally Identifiable Information in
Language Models", S&P 2023 (arXiv:2302.00539), where a tagger finds what is then masked.

Threat model: an adversary of any access who wants personal data out of a model. What the scrubber misses is in the
training texts as before, so that the share it misses is what can leak at least; `facts` tells it, where a data set
notes what its texts say.

Fidelity notes (paper / here)
- The paper's tagger is a neural network (Flair); here patterns find what has a form and a list of names finds names.
  Places, companies, diseases and jobs are not looked for.
- Tags stand for the kind (``[NAME]``), or pseudonyms of the same form for the value (`pseudonyms`).
- Recall is counted on the data's own notes, not on what another tagger finds: a value counts as hidden when every
  letter and digit of it was replaced, wherever it stands in its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from mi_defense_pii_scrub.finding import FORMED, NAME, Found, Gazetteer, find
from mi_defense_pii_scrub.pseudonyms import Pseudonyms
from mi_text.datasets.pools import load_pools, words_of
from mi_text.splits import Facts, TextSplit, as_texts
from micore.contracts import Config, Defense, Split
from micore.runtime import derive_seed

PARTS = 1_000_000


class ScrubbingConfig(Config):
    """Settings of the defense."""

    mode: Literal["tag", "surrogate"] = Field(
        "tag", description="what stands for a value: its kind, or the same pseudonym everywhere"
    )
    names: bool = Field(True, description="scrub names that a list has, and what follows a first name or a title")
    dates: bool = Field(True, description="scrub dates")
    known: float = Field(
        1.0, ge=0, le=1, description="share of the list's names that the scrubber knows; below 1: as of people whom no "
        "list has",
    )  # fmt: skip


class Scrubbing(Defense):
    """Replace personal data in the training texts."""

    Config: ClassVar[type[Config]] = ScrubbingConfig
    config: ScrubbingConfig

    def __init__(self, config: ScrubbingConfig) -> None:
        super().__init__(config)
        self._facts: dict[str, Any] = {}

    @property
    def per_sample_loss(self) -> bool:
        """Whether a text acts on itself alone: a pseudonym depends on the texts that came before."""
        return self.config.mode == "tag"

    def adapt_data(self, split: Split) -> TextSplit:
        """Return the texts scrubbed, with their labels and those facts that still stand in them."""
        texts = as_texts(split)
        kinds = [kind for kind in FORMED if kind != "date" or self.config.dates]
        gazetteer = known_names(self.config.known) if self.config.names else None
        found = [find(text, kinds, gazetteer) for text in texts.texts]
        scrubbed = self._replaced(texts.texts, found)
        rows = range(len(texts))
        notes = [texts.facts_of(row) for row in rows]
        self._facts = {
            "mode": self.config.mode,
            "replaced": dict(sorted(Counter(item.kind for places in found for item in places).items())),
            "texts_changed": sum(map(bool, found)),
            "texts": len(texts),
            "recall": recall(texts.texts, notes, found),
        }
        left = tuple(_left(scrubbed[row], notes[row]) for row in rows) if texts.facts else ()
        return TextSplit(tuple(scrubbed), texts.labels, left)

    def facts(self) -> Mapping[str, Any]:
        """Return how much was replaced, and for each kind of noted value how many of them were hidden."""
        return self._facts

    def _replaced(self, texts: Sequence[str], found: Sequence[Sequence[Found]]) -> list[str]:
        if self.config.mode == "tag":
            return [tagged(text, places) for text, places in zip(texts, found, strict=True)]
        pools = load_pools()
        values = {
            text[item.start : item.end].lower() for text, places in zip(texts, found, strict=True) for item in places
        }
        names = {name.lower() for name in (*pools.first, *pools.last)}
        pseudonyms = Pseudonyms(values | names | set().union(*map(words_of, texts)))
        return [_renamed(text, places, pseudonyms) for text, places in zip(texts, found, strict=True)]


def known_names(share: float) -> Gazetteer:
    """Return a share of the bundled names, the same ones every time; a smaller share is part of a larger one."""
    pools = load_pools()
    first, last = (
        frozenset(name.lower() for name in names if derive_seed("pii-scrub", name) % PARTS < share * PARTS)
        for names in (pools.first, pools.last)
    )
    return Gazetteer(first, last)


def tagged(text: str, places: Sequence[Found]) -> str:
    """Return a text with the kinds in the places of values; the words of one name have one tag."""
    parts, end = list[str](), 0
    for item in places:
        between = text[end : item.start]
        same = bool(parts) and parts[-1] == f"[{NAME.upper()}]" and item.kind == NAME and between == " "
        if not same:
            parts += [between, f"[{item.kind.upper()}]"]
        end = item.end
    return "".join([*parts, text[end:]])


def _renamed(text: str, places: Sequence[Found], pseudonyms: Pseudonyms) -> str:
    parts, end = list[str](), 0
    for item in places:
        parts += [text[end : item.start], pseudonyms.of(item.kind, text[item.start : item.end])]
        end = item.end
    return "".join([*parts, text[end:]])


# how much was found ---------------------------------------------------------------------------------------


def recall(
    texts: Sequence[str], notes: Sequence[Facts], found: Sequence[Sequence[Found]]
) -> dict[str, dict[str, float]]:
    """Return for each kind of noted value how many there are, how many were hidden, and the share."""
    values, hidden = Counter[str](), Counter[str]()
    for text, facts, places in zip(texts, notes, found, strict=True):
        for kind, value in facts.items():
            values[kind] += 1
            hidden[kind] += is_hidden(text, value, places)
    return {
        kind: {"values": n, "hidden": hidden[kind], "share": round(hidden[kind] / n, 4)}
        for kind, n in sorted(values.items())
    }


def is_hidden(text: str, value: str, places: Sequence[Found]) -> bool:
    """Tell whether every letter and digit of a value was replaced, wherever it stands in the text."""
    covered = {place for item in places for place in range(item.start, item.end)}
    start = text.find(value)
    while start >= 0:
        if any(item.isalnum() and start + place not in covered for place, item in enumerate(value)):
            return False
        start = text.find(value, start + 1)
    return True


def _left(text: str, facts: Facts) -> dict[str, str]:
    return {kind: value for kind, value in facts.items() if value in text}
