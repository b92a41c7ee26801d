"""The language of gates: ``FIGURE [by EVALUATOR] [of SUBJECT] OP EXPRESSION``, read into a small tree.

An expression has numbers, ``floor`` and ``ceiling`` of the gate's own figure, other figures, ``+ - * /`` and brackets.
A figure, ``floor`` and ``ceiling`` may end in ``.low`` or ``.high``, the ends of their interval. A name with other
characters than letters, digits and ``_ @ - .`` stands in quotes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from micore.errors import UsageError

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
BOUNDS = ("floor", "ceiling")
ENDS = (".low", ".high")
EXAMPLE = "a gate reads like 'accuracy > floor + 0.1'"
DEEPEST = 50
"""Brackets and signs within one another; far more than a gate needs, far fewer than the stack has room for."""

_TOKEN = re.compile(
    r"""\s*(?: (?P<number> (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)? (?![\w@.]) )
      | (?P<name> [^\W\d][\w@]*(?:[-.][\w@]+)* )
      | "(?P<double>[^"]+)" | '(?P<single>[^']+)'
      | (?P<sign> >=|<=|[-><+*/()] ) )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    value: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A figure, or ``floor`` or ``ceiling`` of the gate's figure (``bound``); an end of its interval is still on it."""

    name: str
    subject: str | None = None
    evaluator: str | None = None
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions and the sign between them."""

    sign: str
    left: Expression
    right: Expression


Expression = Number | Reference | Operation


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on a run's figures, under which a pipeline is to fail."""

    text: str
    figure: Reference
    comparison: str
    limit: Expression


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Raises: UsageError, which points to the place that cannot be read.
    """
    return _Parser(text).gate()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """Reads one gate by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def _split(self) -> list[_Token]:
        found, at = [], 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                raise self._error("cannot be read", at + len(self._text[at:]) - len(self._text[at:].lstrip()))
            kind = {"double": "quoted", "single": "quoted"}.get(match.lastgroup, match.lastgroup)
            found.append(_Token(kind, match[match.lastgroup], match.start(match.lastgroup)))
            at = match.end()
        return [*found, _Token("end", "", end)]

    def _error(self, what: str, at: int) -> UsageError:
        rest = self._text[at:].strip()
        place = f"at {rest!r}" if rest else "at its end"
        return UsageError(f"gate {self._text!r} {what} {place}", hint=EXAMPLE)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str, kind: str = "sign") -> str | None:
        """Return the next token's text and go on, if it is one of these."""
        token = self._token
        if token.kind != kind or token.text not in texts:
            return None
        self._next += 1
        return token.text

    def gate(self) -> Gate:
        figure = self._figure()
        if figure.bound:
            raise UsageError(f"gate {self._text!r} does not begin with a figure", hint=EXAMPLE)
        comparison = self._take(*COMPARISONS)
        if comparison is None:
            raise self._error(f"needs one of {' '.join(COMPARISONS)}", self._token.at)
        limit = self._sum()
        if self._token.kind != "end":
            raise self._error("has more than one condition", self._token.at)
        return Gate(" ".join(self._text.split()), figure, comparison, limit)

    def _sum(self) -> Expression:
        found = self._product()
        while sign := self._take("+", "-"):
            found = Operation(sign, found, self._product())
        return found

    def _product(self) -> Expression:
        found = self._factor()
        while sign := self._take("*", "/"):
            found = Operation(sign, found, self._factor())
        return found

    def _factor(self) -> Expression:
        token = self._token
        if token.kind == "number":
            self._next += 1
            return Number(float(token.text))
        if token.kind != "sign":
            return self._figure()
        if not self._take("-", "("):
            raise self._error("lacks a number or a figure", token.at)
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error("is nested too deeply", token.at)
        found = Operation("-", Number(0.0), self._factor()) if token.text == "-" else self._bracket(token)
        self._depth -= 1
        return found

    def _bracket(self, opened: _Token) -> Expression:
        found = self._sum()
        if not self._take(")"):
            raise self._error("has a bracket that is never closed", opened.at)
        return found

    def _figure(self) -> Reference:
        token = self._token
        if token.kind not in ("name", "quoted"):
            raise self._error("lacks a number or a figure", token.at)
        self._next += 1
        if token.kind == "name" and _without_end(token.text) in BOUNDS:
            return Reference(token.text, bound=True)
        evaluator = self._named("by")
        subject = self._named("of")
        return Reference(token.text, subject, evaluator)

    def _named(self, word: str) -> str | None:
        """Return the name behind a word, where the word stands here."""
        if self._take(word, kind="name") is None:
            return None
        token = self._token
        if token.kind not in ("name", "quoted"):
            raise self._error(f"lacks a name behind {word!r}", token.at)
        self._next += 1
        return token.text


def _without_end(name: str) -> str:
    return next((name.removesuffix(end) for end in ENDS if name.endswith(end)), name)
