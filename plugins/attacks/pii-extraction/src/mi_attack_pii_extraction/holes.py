"""What may stand in a hole of a text: values of its kind among the continuations of what stands in front."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from mi_attack_pii_extraction.tagging import Tagger
from mi_text.evidence import Hole

_NEXT = re.compile(r"\s*(\w+|[^\w\s])")


def candidates_in(continuations: Iterable[str], hole: Hole, tagger: Tagger) -> Counter[str]:
    """Return how often continuations propose each value for a hole, in the order in which they first do.

    Those that stand in the known text already are left out (Lukas et al., 2023, section 4.3).
    """
    known = hole.filled("\n").lower()
    values = [value for text in continuations for value in _values(text, hole, tagger)]
    return Counter(value for value in values if value.lower() not in known)


def _values(text: str, hole: Hole, tagger: Tagger) -> list[str]:
    if tagger.knows(hole.slot):
        return tagger.find(text, hole.slot)
    value = up_to(text, hole.after)
    return [value] if value else []


def up_to(text: str, after: str) -> str:
    """Return a continuation up to where it goes on as the known text behind the hole does; whole where it never does.

    The first word or sign of that text is looked for.
    """
    following = _NEXT.match(after)
    if following is None:
        return text.strip()
    sign = following[1]
    edge = r"\b" if sign[0].isalnum() else ""
    place = re.search(rf"{edge}{re.escape(sign)}{edge}", text)
    return text[: place.start()].strip() if place else text.strip()
