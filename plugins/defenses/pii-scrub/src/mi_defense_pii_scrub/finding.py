"""Where personal data stand in a text: what has a form, by patterns; names, by a list of them.

Kinds, in the order in which they are looked for; a place belongs to the first that finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

NAME = "name"

_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    "nov(?:ember)?|dec(?:ember)?"
)

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
IBAN = re.compile(r"\b[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,3})?\b", re.IGNORECASE)
CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
DATE = re.compile(
    rf"\b(?:(?:{_MONTHS})\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}(?:st|nd|rd|th)?\.? (?:{_MONTHS})\.?,? "
    r"\d{4}|\d{4}-\d{2}-\d{2}|\d{1,2}[/.]\d{1,2}[/.](?:\d{4}|\d{2}))(?!\w)",
    re.IGNORECASE,
)
SSN = re.compile(r"(?<![\w-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w-])")
PHONE = re.compile(
    r"(?<![\w-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,5}\)[ .-]?|\d{2,5}[ ./-])\d{3,4}(?:[ .-]?\d{2,4}){0,2}(?![\w-])"
)
NUMBER = re.compile(r"(?<![\w.,])\d{6,}(?!\w)")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_TITLE = re.compile(r"(?:mr|mrs|ms|dr|prof|doctor|family)\.?")

AMBIGUOUS = frozenset(
    _WORD.findall(
        """
        amber angel april archer ash autumn baker ball banks barber bass bean beard bell bender berry best bill bird
        bishop black blair bond bowers branch bridges brown buck bush cannon carpenter case chambers chandler chase
        cherry church clay cobb colon combs cook crane cross crystal curry daisy dale dawn day dean destiny diamond
        downs drew duke earl ebony english faith farmer fields fisher flowers ford foster fox frank french frost fry
        fuller gamble gates gay gene gentry glass glen golden good grace grant graves gray green gross guy hale hall
        hardy heath hill ho holder holly hood horn house hull hunt hunter jack jade jasmine jay jean jo joy key king
        knight lam lamb lance lane le li lin little long love mack mark marks marsh marshall mason may mayo meadows
        mercedes miles mills misty moody moon moss noble pace page park parks patty peck penny pope porter potter
        powers price prince proctor ray raven rich rice riddle rivers roach robin rose rush sandy savage sellers
        sharp shepherd shields short sierra small snow sparks spears stark stone stout strong sue summer summers
        tanner wade walker wall walls ward ware waters watts weaver weeks wells west white will wise wolf wood woods
        wright york young
        """
    )
)
"""Names that are words too: they count where a capital or a name beside them says so."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place in a text, from ``start`` to before ``end``, and what kind of value stands there."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """Names that are known, in lower case."""

    first: frozenset[str]
    last: frozenset[str]


def passes_luhn(text: str) -> bool:
    """Tell whether the digits of a text end with the check digit of a card number (ISO/IEC 7812-1)."""
    digits = [int(item) for item in text if item.isdecimal()][::-1]
    doubled = sum(sum(divmod(2 * item, 10)) for item in digits[1::2])
    return (sum(digits[::2]) + doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Tell whether the check digits of an account number are right (ISO 13616: the whole is 1 modulo 97)."""
    plain = "".join(text.split()).upper()
    return plain.isascii() and int("".join(str(int(item, 36)) for item in plain[4:] + plain[:4])) % 97 == 1


def _always(text: str) -> bool:
    return True


PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", EMAIL, _always), ("iban", IBAN, is_iban), ("card", CARD, passes_luhn), ("date", DATE, _always),
    ("ssn", SSN, _always), ("phone", PHONE, _always), ("number", NUMBER, _always),
)  # fmt: skip

FORMED = tuple(kind for kind, _, _ in PATTERNS)


def find(text: str, kinds: Iterable[str], gazetteer: Gazetteer | None) -> list[Found]:
    """Return the places of personal data in their order, none of which overlap; each word of a name is one."""
    wanted, found = set(kinds), list[Found]()
    for kind, pattern, is_real in PATTERNS:
        if kind in wanted:
            places = (Found(*match.span(), kind) for match in pattern.finditer(text) if is_real(match[0]))
            found += [item for item in places if not _overlaps(item, found)]
    if gazetteer is not None:
        found += [item for item in _names(text, gazetteer) if not _overlaps(item, found)]
    return sorted(found, key=lambda item: item.start)


def _overlaps(item: Found, others: Iterable[Found]) -> bool:
    return any(item.start < other.end and other.start < item.end for other in others)


# names ----------------------------------------------------------------------------------------------------


def _names(text: str, gazetteer: Gazetteer) -> Iterator[Found]:
    """Yield the words that are names, of a text with capitals only such as begin with one."""
    words = list(_WORD.finditer(text))
    cased = text != text.lower()
    known = [_is_known(word[0], gazetteer, cased) for word in words]
    sure = [
        is_known and (word[0].lower() not in AMBIGUOUS or (cased and not _begins_sentence(text, word.start())))
        for word, is_known in zip(words, known, strict=True)
    ]
    chosen = set(_beside(text, words, known, sure, gazetteer))
    if cased:
        chosen |= set(_unknown(text, words, sure))
    for place, word in enumerate(words):
        if sure[place] or place in chosen:
            yield Found(*word.span(), NAME)


def _is_known(word: str, gazetteer: Gazetteer, cased: bool) -> bool:
    plain = word.lower().removesuffix("'s").removesuffix("\u2019s")
    return (not cased or word[0].isupper()) and (plain in gazetteer.first or plain in gazetteer.last)


def _beside(
    text: str, words: list[re.Match[str]], known: list[bool], sure: list[bool], gazetteer: Gazetteer
) -> Iterator[int]:
    """Yield words that may be names and stand beside one that is, or that are a first and a last name."""
    for left, right in pairwise(range(len(words))):
        if not (known[left] and known[right] and _adjoin(text, words[left], words[right])):
            continue
        full = words[left][0].lower() in gazetteer.first and words[right][0].lower() in gazetteer.last
        if sure[left] or sure[right] or full:
            yield from (left, right)


def _unknown(text: str, words: list[re.Match[str]], sure: list[bool]) -> Iterator[int]:
    """Yield words with a capital that follow a name or a title: names that no list has."""
    for left, right in pairwise(range(len(words))):
        titled = _TITLE.fullmatch(words[left][0].lower())
        if (sure[left] or titled) and words[right][0][0].isupper() and _adjoin(text, words[left], words[right]):
            yield right


def _adjoin(text: str, left: re.Match[str], right: re.Match[str]) -> bool:
    between = text[left.end() : right.start()]
    return between == " " or (between == ". " and bool(_TITLE.fullmatch(left[0].lower())))


def _begins_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \"'(")
    return not before or before[-1] in ".!?:\n"
